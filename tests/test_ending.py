"""A process that is told to end, in each of its hosts: what its requests left to be told arrives, and is kept."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from local import azurite as azurite_service
from local.providers import StandIn, serve
from local.standin_behaviour import Behaviour
from tests import ingestion
from tests.conftest import need_worker_library, unavailable
from tests.fleet import Member, fleet, tables
from tests.routes_for import CHAT_PATH, HELLO, routes_for

PATIENCE = 60.0  # seconds for what takes two on an idle machine
NEVER = 60.0  # seconds between two sendings: within a test, only a process that ends sends
TOKENS = 60
STREAM = {"model": "chat", "messages": HELLO, "stream": True}


@pytest.fixture(params=["local.host", "tests.worker_host"])
def host(request: pytest.FixtureRequest) -> str:
    """What serves the app: the local host, or the worker library as in the cloud, each with signals of its own."""
    if request.param == "tests.worker_host":
        need_worker_library()
    return str(request.param)


@asynccontextmanager
async def one_process(folder: Path, host: str, settings: Mapping[str, str]) -> AsyncIterator[tuple[Member, StandIn]]:
    async with AsyncExitStack() as stack:
        alpha = await stack.enter_async_context(serve(name="alpha", behaviour=Behaviour()))
        path = folder / "routes.toml"
        path.write_text(f"telemetry = {{interval_seconds = {NEVER}, metrics_seconds = {NEVER}}}\n{routes_for([alpha])}")
        (member,) = await stack.enter_async_context(fleet([settings], path, host=host))
        yield member, alpha


async def ends_in_the_middle_of_a_stream(member: Member, alpha: StandIn) -> str:
    """The process is told to end while a stream runs. Returns the id of the stream's decision."""
    alpha.behave(tokens=TOKENS, tokens_per_second=60)
    async with member.client.stream("POST", CHAT_PATH, json=STREAM) as stream:
        pieces = stream.aiter_bytes()
        await anext(pieces)
        member.process.send_signal(signal.SIGTERM)
        said = b"".join([piece async for piece in pieces])
    assert said.rstrip().endswith(b"[DONE]")
    assert await asyncio.to_thread(member.process.wait, PATIENCE) in (0, -signal.SIGTERM)
    return stream.headers["x-router-decision-id"]


@pytest.mark.parametrize("kind", ["opencensus", "azuremonitor", "otlp"])
async def test_its_telemetry_arrives_with_that_of_the_stream_that_ended_last(tmp_path: Path, host: str, kind: str):
    with ingestion.serving() as got:
        told = {
            "ROUTER_TELEMETRY": kind,
            "APPLICATIONINSIGHTS_CONNECTION_STRING": got.connection_string,
            "OTEL_EXPORTER_OTLP_ENDPOINT": got.url,
        }
        async with one_process(tmp_path, host, told) as (member, alpha):
            assert (await member.ask()).status_code == 200
            await ends_in_the_middle_of_a_stream(member, alpha)
    if kind == "otlp":
        served = [span for span in got.spans() if span.kind == 2]
        events = [record.event_name for record in got.records()]
        *_, streamed = (point.as_int for point in got.metrics()["llm.streaming.tokens"])  # each export tells the sum
    else:
        served = got.items("RequestData")
        events = [each["data"]["baseData"]["name"] for each in got.items("EventData")]
        streamed = got.total("llm.streaming.tokens")
    assert len(served) == 2
    assert events.count("llm.routing.decision") == 2
    assert events.count("llm.streaming.completed") == 1
    assert streamed == TOKENS


async def test_its_decisions_are_kept_for_others_to_read(tmp_path: Path, host: str):
    if reason := azurite_service.unavailable():
        unavailable(reason)
    async with tables() as service:
        async with one_process(tmp_path, host, service.environment) as (member, alpha):
            first = (await member.ask()).headers["x-router-decision-id"]
            last = await ends_in_the_middle_of_a_stream(member, alpha)
        async with one_process(tmp_path, "local.host", service.environment) as (other, _):
            for name in (first, last):
                found = await other.client.get(f"/v1/router/decisions/{name}")
                assert (found.status_code, found.json()["target"]) == (200, "alpha")
