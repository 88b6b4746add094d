"""What the router adds to a call: the same chat completion straight to a stand-in provider, and through the local host.

    python -m benchmarks.hot_path [--seconds 5] [--connections 1 16]

Prints requests per second, latency, and the CPU that the router's process takes per request. Both sides run in one
invocation and take turns, so that a noisy machine disturbs both; CPU per request is the figure to trust.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import psutil

from local.processes import free_port, wait_for_port

ROOT = Path(__file__).resolve().parent.parent
KEY = "sk-benchmark"
ROUTES = """
[providers.openai]
type = "openai"
base_url = "{url}"
key = "env:ROUTER_BENCHMARK_KEY"
[targets.gpt]
provider = "openai"
model = "gpt-5-mini"
[targets.spare]
provider = "openai"
model = "gpt-5"
[routes.auto]
targets = ["gpt", "spare"]
[callers.benchmark]
key = "env:ROUTER_BENCHMARK_KEY"
"""
PROMPT = "Summarise what a circuit breaker does, in two sentences. " * 8


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement. Times in milliseconds."""

    per_second: float
    latencies: list[float]
    cpu: float  # of the router, per request


async def load(port: int, body: bytes, connections: int, seconds: float) -> list[float]:
    """Latencies in milliseconds of requests sent one after the other on each of `connections`."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            started = time.perf_counter()
            writer.write(body)
            await _answer(reader)
            latencies.append((time.perf_counter() - started) * 1000)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return latencies


async def _answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise SystemExit(f"not answered: {head[:200]!r}")
    if b"transfer-encoding: chunked" in head:
        await reader.readuntil(b"0\r\n\r\n")
        return
    length = head.split(b"content-length: ")[1].split(b"\r\n")[0]
    await reader.readexactly(int(length))


def request(model: str, *, stream: bool) -> bytes:
    """The bytes of one request."""
    body = (
        f'{{"model": "{model}", "stream": {str(stream).lower()}, '
        f'"messages": [{{"role": "user", "content": "{PROMPT}"}}], "max_tokens": 50}}'
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def servers() -> Iterator[tuple[int, int, psutil.Process]]:
    """A stand-in and the local host in front of it: their ports, and the host's process."""
    provider, router = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        routes = Path(folder) / "routes.toml"
        routes.write_text(ROUTES.format(url=f"http://127.0.0.1:{provider}/v1"))
        environment = {**os.environ, "ROUTER_CONFIG": str(routes), "ROUTER_BENCHMARK_KEY": KEY}
        commands = [["local.providers", "--openai", str(provider)], ["local.host", "--port", str(router)]]
        running = [
            subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
            for command in commands
        ]
        try:
            for port, process in zip((provider, router), running, strict=True):
                wait_for_port(port, process)
            yield provider, router, psutil.Process(running[1].pid)
        finally:
            for process in running:
                process.terminate()
                process.wait()


def measure(port: int, body: bytes, connections: int, seconds: float, router: psutil.Process) -> Round:
    before = router.cpu_times()
    latencies = asyncio.run(load(port, body, connections, seconds))
    after = router.cpu_times()
    cpu = (after.user + after.system - before.user - before.system) * 1000
    return Round(len(latencies) / seconds, latencies, cpu / len(latencies))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    options = parser.parse_args()
    print("kind    connections  direct/s  routed/s  direct p50  routed p50  added p50  added p99   router CPU/request")
    with servers() as (provider, router, process):
        for stream in (False, True):
            direct, routed = request("gpt-5-mini", stream=stream), request("auto", stream=stream)
            measure(router, routed, 4, 1.0, process)  # warm
            for connections in options.connections:
                a = measure(provider, direct, connections, options.seconds, process)
                b = measure(router, routed, connections, options.seconds, process)
                print(_row("stream" if stream else "plain", connections, a, b), flush=True)


def _row(kind: str, connections: int, direct: Round, routed: Round) -> str:
    middle = median(routed.latencies) - median(direct.latencies)
    high = quantiles(routed.latencies, n=100)[98] - quantiles(direct.latencies, n=100)[98]
    return (
        f"{kind:6} {connections:11}  {direct.per_second:8.0f}  {routed.per_second:8.0f}  "
        f"{median(direct.latencies):7.2f} ms  {median(routed.latencies):7.2f} ms  {middle:6.2f} ms  {high:6.2f} ms  "
        f"{routed.cpu:12.2f} ms"
    )


if __name__ == "__main__":
    main()
