"""What telemetry costs a request while its backend is well, hangs, throttles or refuses.

    python -m benchmarks.telemetry_cost

The router runs in this process behind the local host, with a stand-in provider that answers at once and an ingestion
endpoint on loopback. Requests go one after another; what counts is the difference between the rows.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from local.host import build, serving
from local.providers import serve
from routing import wiring
from routing.telemetry import Telemetry
from tests import ingestion
from tests.ingestion import Ingestion
from tests.routes_for import CHAT, CHAT_PATH, KEY, NO_TLS, PROVIDER_KEY, routes_for

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 30
SETTLE_SECONDS = 1.5  # in which exporters load; they do so beside the requests, but not in these rows


@dataclass(frozen=True, slots=True)
class Row:
    """One way of sending, and the state of what it is sent to."""

    kind: str
    state: str
    prepare: Callable[[Ingestion], Any]


def _well(got: Ingestion) -> None:
    got.status = 200
    got.gate.set()


def _hanging(got: Ingestion) -> None:
    got.gate.clear()


def _throttling(got: Ingestion) -> None:
    _well(got)
    got.status = 429


def _refusing(got: Ingestion) -> None:
    _well(got)
    got.status = 403


STATES = (("well", _well), ("hangs", _hanging), ("throttles", _throttling), ("refuses", _refusing))
ROWS = [
    Row("none", "-", _well),
    *(Row(kind, name, how) for kind in ("opencensus", "azuremonitor", "otlp") for name, how in STATES),
    Row("none", "again", _well),
]


async def measure(row: Row, got: Ingestion, url: str, count: int) -> list[float]:
    """Milliseconds of each request."""
    await wiring.forget()
    row.prepare(got)
    os.environ["ROUTER_TELEMETRY"] = row.kind
    headers = {"authorization": f"Bearer {KEY}"}
    times = []
    async with httpx.AsyncClient(base_url=url, headers=headers, verify=NO_TLS, trust_env=False, timeout=30) as client:
        for number in range(WARM_UP + count):
            if number == WARM_UP:
                await asyncio.sleep(SETTLE_SECONDS)
            started = time.perf_counter()
            answer = await client.post(CHAT_PATH, json=CHAT)
            times.append((time.perf_counter() - started) * 1000)
            assert answer.status_code == 200, answer.text
    got.gate.set()
    return times[WARM_UP:]


def told_nanoseconds() -> float:
    """What telling one request costs on its path."""
    telemetry, rounds = Telemetry(active=True, kept=1_000_000), 20_000
    started = time.perf_counter_ns()
    for _ in range(rounds):
        exchange = telemetry.exchange("req", CHAT_PATH, {})
        assert exchange is not None
        exchange.trace.headers("a" * 16)
        exchange.answered(200)
    return (time.perf_counter_ns() - started) / rounds


async def main(count: int) -> None:
    with ingestion.serving() as got, tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            provider = await stack.enter_async_context(serve("openai"))
            path = Path(folder) / "routes.toml"
            path.write_text("telemetry = {interval_seconds = 0.5, metrics_seconds = 1}\n" + routes_for([provider]))
            os.environ |= {"ROUTER_CONFIG": str(path), "ROUTER_TEST_CALLER": KEY, "ROUTER_TEST_PROVIDER": PROVIDER_KEY}
            os.environ |= {"APPLICATIONINSIGHTS_CONNECTION_STRING": got.connection_string}
            os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = got.url
            url = await stack.enter_async_context(serving(build(ROOT), drain_seconds=1))
            print(f"telling one request: {told_nanoseconds() / 1000:.1f} us on its path\n")
            print(f"{'sends by':14}{'backend':12}{'p50 ms':>8}{'p99 ms':>8}{'most ms':>9}  answered")
            for row in ROWS:
                times = sorted(await measure(row, got, url, count))
                p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
                print(f"{row.kind:14}{row.state:12}{p50:8.2f}{p99:8.2f}{times[-1]:9.2f}  {len(times)}")
            await wiring.forget()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=300, help="for each row (default: 300)")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    asyncio.run(main(parser.parse_args().requests))
