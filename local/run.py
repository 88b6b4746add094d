"""Serves the router on this machine with everything it needs: what `make run` starts.

    python -m local.run [--port PORT] [--routes FILE]

Without --routes the router uses local/routes.dev.toml and stand-in providers on loopback; with it, the providers of
that file, with keys from the environment. Azurite keeps the state; without it the state is in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from local import azurite, processes
from local.host import AppError, Host, build, listen, serve_until_signalled
from local.route_table import RouteError

ROOT = Path(__file__).resolve().parent.parent
DEV_ROUTES = ROOT / "local" / "routes.dev.toml"
DEV_KEY = "sk-local-dev"
STAND_INS = ("openai", "azure", "ollama")
MODEL = "auto"


@dataclass(frozen=True, slots=True)
class StandIns:
    """The started stand-in providers: one process, one loopback port each."""

    process: subprocess.Popen[bytes]
    ports: Mapping[str, int]

    def environment(self) -> dict[str, str]:
        return {
            f"STANDIN_{name.upper()}_URL": f"http://{processes.LOOPBACK}:{port}" for name, port in self.ports.items()
        }

    def ready(self) -> None:
        for port in self.ports.values():
            processes.wait_for_port(port, self.process)


@contextmanager
def stand_ins() -> Iterator[StandIns]:
    """Start the stand-in providers on free ports and end them on leaving; does not wait for them to listen."""
    ports = {name: processes.free_port() for name in STAND_INS}
    options = [text for name, port in ports.items() for text in (f"--{name}", str(port))]
    process = processes.spawn([sys.executable, "-m", "local.providers", *options])
    try:
        yield StandIns(process, ports)
    finally:
        processes.stop(process)


def main() -> None:
    options = _options()
    # `make` may be killed without a word; a process started from a shell lives on as usual.
    if sys.platform == "linux" and "MAKELEVEL" in os.environ:
        processes.die_with(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # also ends the children while things still start
    routes = Path(options.routes or DEV_ROUTES).resolve()
    if not routes.is_file():
        raise SystemExit(f"There is no routes file {routes}")
    sock = listen(options.port)
    os.chdir(ROOT)
    with ExitStack() as running:
        started = _start(running, with_stand_ins=options.routes is None)
        os.environ |= {"ROUTER_CONFIG": str(routes), **_environment(started)}
        os.environ.setdefault("ROUTER_DEV_KEY", DEV_KEY)
        app = _app()
        for service in started:
            service.ready()
        asyncio.run(serve_until_signalled(app, sock, lambda url: print(_greeting(url, started), flush=True)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=7071, help="loopback port to serve on (default: 7071)")
    parser.add_argument("--routes", help="routes file with real providers (default: the stand-ins)")
    return parser.parse_args()


def _start(running: ExitStack, with_stand_ins: bool) -> list[azurite.Azurite | StandIns]:
    started: list[azurite.Azurite | StandIns] = []
    if azurite.unavailable() is None:
        started.append(running.enter_context(azurite.azurite()))
    if with_stand_ins:
        started.append(running.enter_context(stand_ins()))
    return started


def _environment(started: list[azurite.Azurite | StandIns]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for service in started:
        environment |= service.environment()
    return environment


def _app() -> Host:
    try:
        return build(ROOT)
    except (AppError, RouteError) as error:
        raise SystemExit(f"The function app cannot be served: {error}") from None


def _greeting(url: str, started: list[azurite.Azurite | StandIns]) -> str:
    reason = azurite.unavailable()
    state = f"in memory, because {reason}" if reason else "in Azurite, forgotten at the end"
    providers = "stand-ins on loopback" if any(isinstance(s, StandIns) for s in started) else "those of the routes file"
    key = os.environ["ROUTER_DEV_KEY"]
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]})
    return f"""
The router listens on {url} (Ctrl-C ends it)
  key        {key}
  providers  {providers}
  state      {state}

Ask it with curl:

curl -i {url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'

or with the openai package, which .venv/bin/python has:

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
messages = [{{"role": "user", "content": "Hello"}}]
reply = client.chat.completions.create(model="{MODEL}", messages=messages)
print(reply.choices[0].message.content)
"""


if __name__ == "__main__":
    main()
