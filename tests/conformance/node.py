"""One Node process with the clients of that language, fed with jobs one at a time."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from local.processes import die_with, stop
from tests.conformance.jobs import WORDS, Done, Job, Trouble

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(__file__).with_name("node_clients.mjs")
PATIENCE = 30.0  # seconds for one job; the first one waits for the start of Node as well


def unavailable() -> str | None:
    """Why Node's clients cannot run here and what to do about it, or None when they can."""
    if not shutil.which("node"):
        return "node is not installed (install nodejs and npm, then run make setup)"
    if not all((ROOT / "node_modules" / name).exists() for name in ("openai", "ai", "@ai-sdk/openai")):
        return "the clients for Node are not installed (install npm, then run make setup)"
    return None


class Node:
    """The process. Its clients are drivers: `Node.driver("openai-node").do(url, job)`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def driver(self, client: str) -> NodeClient:
        return NodeClient(self, client)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises TimeoutError, and EOFError when the process has ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        if not select.select([stdout], [], [], PATIENCE)[0]:
            raise TimeoutError(f"node has not answered within {PATIENCE} s: {request}")
        line = stdout.readline()
        if not line:
            raise EOFError(f"node ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class NodeClient:
    """One of the process's clients."""

    def __init__(self, node: Node, client: str) -> None:
        self._node, self._client = node, client

    def do(self, url: str, job: Job) -> Done:
        answer = self._node.ask({"client": self._client, "url": url, "job": asdict(job), "words": WORDS})
        error = answer.pop("error", None)
        return Done(**answer, error=error and Trouble(**error))


@contextmanager
def node_clients() -> Iterator[Node]:
    """The process, ended on leaving."""
    process = subprocess.Popen(
        ["node", str(PROGRAM)],
        cwd=ROOT,
        env={**os.environ, "AI_SDK_LOG_WARNINGS": "false", "NODE_NO_WARNINGS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with if sys.platform == "linux" else None,
    )
    try:
        yield Node(process)
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        stop(process)
