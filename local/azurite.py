"""Azurite's table service, in memory and on loopback: what a laptop uses in place of Azure Table Storage."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local.processes import LOOPBACK, free_port, spawn, stop, wait_for_port

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "node_modules" / "azurite" / "dist" / "src" / "table" / "main.js"
# The account that every Azurite has; it opens nothing but an emulator.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True, slots=True)
class Azurite:
    """A started table service; `ready` waits until it listens."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def connection_string(self) -> str:
        endpoint = f"http://{LOOPBACK}:{self.port}/{ACCOUNT}"
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};TableEndpoint={endpoint};"

    def environment(self) -> dict[str, str]:
        return {"ROUTER_TABLES": self.connection_string}

    def ready(self) -> None:
        wait_for_port(self.port, self.process)


def unavailable() -> str | None:
    """Why Azurite cannot run here and what to do about it, or None when it can."""
    if not shutil.which("node"):
        return "node is not installed (install nodejs and npm, then run make setup)"
    if not PROGRAM.exists():
        return "Azurite is not installed (install npm, then run make setup)"
    return None


@contextmanager
def azurite() -> Iterator[Azurite]:
    """Start the table service on a free port and end it on leaving; does not wait for it to listen."""
    port = free_port()
    options = ["--inMemoryPersistence", "--disableTelemetry", "--silent", "--tableHost", LOOPBACK]
    process = spawn(["node", str(PROGRAM), *options, "--tablePort", str(port)])
    try:
        yield Azurite(process, port)
    finally:
        stop(process)
