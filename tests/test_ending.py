"""A process that is told to end, in each of its hosts: what its requests left to be told arrives, and is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from local import azurite as azurite_service
from local.providers import StandIn, serve
from local.standin_behaviour import Behaviour
from tests import ingestion
from tests.conftest import unavailable
from tests.fleet import Member, ended_in_a_stream, fleet, tables
from tests.routes_for import routes_for

NEVER = 60.0  # seconds between two sendings: within a test, only a process that ends sends
TOKENS = 60


@asynccontextmanager
async def one_process(folder: Path, host: str, settings: Mapping[str, str]) -> AsyncIterator[tuple[Member, StandIn]]:
    async with AsyncExitStack() as stack:
        alpha = await stack.enter_async_context(serve(name="alpha", behaviour=Behaviour()))
        path = folder / "routes.toml"
        path.write_text(f"telemetry = {{interval_seconds = {NEVER}, metrics_seconds = {NEVER}}}\n{routes_for([alpha])}")
        (member,) = await stack.enter_async_context(fleet([settings], path, host=host))
        yield member, alpha


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
            await ended_in_a_stream(member, alpha, TOKENS)
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
            last = await ended_in_a_stream(member, alpha, TOKENS)
        async with one_process(tmp_path, "local.host", service.environment) as (other, _):
            for name in (first, last):
                found = await other.client.get(f"/v1/router/decisions/{name}")
                assert (found.status_code, found.json()["target"]) == (200, "alpha")
