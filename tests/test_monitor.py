"""Each way of sending telemetry, to an endpoint that decodes what arrives, and one that hangs, refuses or throttles."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from local.providers import StandIn
from local.standin_behaviour import Fault
from routing import telemetry_names
from routing.cloud import insights, monitor
from routing.cloud.monitor import Monitor
from routing.recording import Place, Recorder
from routing.sharing import Event
from routing.telemetry import Note, Telemetry
from routing.trace import GivenIds
from tests import ingestion
from tests.azure_world import identity, in_this_world, vault, world
from tests.conftest import ROOT, ServeApp
from tests.ingestion import Ingestion, attributes
from tests.routes_for import CHAT, CHAT_PATH, HELLO, KEY, ONCE, PROVIDER_KEY, Stage, routes_for
from tests.standin_vault import CLIENT_ID, Vault

__all__ = ["identity", "in_this_world", "vault", "world"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:'locale.getdefaultlocale' is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),
]
PRICE = {"input": 1.0, "output": 2.0}
PRICES = {"one": {"input": 2.0, "output": 4.0}}  # of what would have answered, had it not failed
QUICK = {"interval_seconds": 0.05, "metrics_seconds": 0.05}
OUTPUT = {"gen_ai.token.type": "output"}
INSIGHTS = ["opencensus", "azuremonitor"]
EVERY = [*INSIGHTS, "otlp"]


@pytest.fixture
def endpoint() -> Iterator[Ingestion]:
    with ingestion.serving() as served:
        yield served


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("OTEL_", "APPLICATIONINSIGHTS_", "IDENTITY_"))]:
        monkeypatch.delenv(name)
    for name in insights.SILENT:
        monkeypatch.setenv(name, "true")  # and taken back afterwards


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Theatre:
    """A router that sends its telemetry to the endpoint, in front of stand-ins."""

    def __init__(self, stage: Stage, serve_app: ServeApp, endpoint: Ingestion, folder: Path, setenv: Any) -> None:
        self.stage, self.endpoint = stage, endpoint
        self._serve_app, self._folder, self._setenv = serve_app, folder, setenv

    def serve(self, kind: str, *standins: StandIn, telemetry: Mapping[str, Any] = QUICK, callers: Any = None) -> None:
        self._setenv(monitor.CONNECTION, self.endpoint.connection_string)
        self._setenv("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint.url)
        tables = {
            "route": {"retry": ONCE},
            "targets": {each.name: {"price": PRICES.get(each.name, PRICE)} for each in standins},
        }
        path = self._folder / "telemetry.toml"
        settings = ", ".join(f"{name} = {str(value).lower()}" for name, value in telemetry.items())
        path.write_text(f"telemetry = {{{settings}}}\n" + routes_for(standins, callers=callers, **tables))
        keys = {"ROUTER_TEST_CALLER": KEY, "ROUTER_TEST_PROVIDER": PROVIDER_KEY}
        self.stage.url = self._serve_app({"ROUTER_CONFIG": str(path), "ROUTER_TELEMETRY": kind, **keys})

    def fall_back(self, kind: str, times: int = 1, **fields: Any) -> None:
        """Requests that one target fails and the other answers."""
        one = self.stage.standin(name="one", fault=Fault("status", status=503))
        two = self.stage.standin(name="two")
        self.serve(kind, one, two)
        for _ in range(times):
            assert self.stage.ask(**fields).status_code == 200


@pytest.fixture
def theatre(
    stage: Stage, serve_app: ServeApp, endpoint: Ingestion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Theatre:
    return Theatre(stage, serve_app, endpoint, tmp_path, monkeypatch.setenv)


@pytest.mark.parametrize("kind", INSIGHTS)
def test_application_insights_gets_requests_and_dependencies_of_one_operation(theatre: Theatre, kind: str):
    theatre.fall_back(kind, metadata={"task_type": "planning"})
    got = theatre.endpoint
    got.until(lambda: bool(got.items("RequestData")) and len(got.items("RemoteDependencyData")) == 2)
    (served,), calls = got.items("RequestData"), got.items("RemoteDependencyData")
    data = served["data"]["baseData"]
    assert (data["name"], data["responseCode"], data["success"]) == (f"POST {CHAT_PATH}", "200", True)
    assert data["properties"]["router.route"] == "chat"
    assert data["properties"]["router.task"] == "planning"
    assert {each["tags"]["ai.operation.id"] for each in (served, *calls)} == {served["tags"]["ai.operation.id"]}
    assert {each["tags"]["ai.operation.parentId"] for each in calls} == {data["id"]}
    bodies = {each["data"]["baseData"]["properties"]["router.target"]: each["data"]["baseData"] for each in calls}
    assert (bodies["one"]["success"], bodies["two"]["success"]) == (False, True)
    assert bodies["one"]["properties"]["error.type"] == "Unavailable"
    assert "error.type" not in bodies["two"]["properties"]
    assert bodies["two"]["name"] == "chat model-of-two"
    assert served["tags"]["ai.cloud.role"] == "llm-router"


@pytest.mark.parametrize("kind", INSIGHTS)
def test_application_insights_gets_events_and_every_value_is_text(theatre: Theatre, kind: str):
    theatre.fall_back(kind, times=5, stream=True)
    got = theatre.endpoint
    wanted = ("llm.routing.decision", "llm.fallback.used", "llm.streaming.started", "llm.streaming.completed")
    got.until(lambda: bool(got.named("EventData", "llm.circuit_breaker.opened")))
    got.until(lambda: all(len(got.named("EventData", name)) == 5 for name in wanted))
    (opened,) = got.named("EventData", "llm.circuit_breaker.opened")
    assert opened["properties"]["router.target"] == "one"
    properties = [each["data"]["baseData"]["properties"] for each in got.items("EventData")]
    assert {type(value) for each in properties for value in each.values()} == {str}
    (fell, *_) = got.named("EventData", "llm.fallback.used")
    assert (fell["properties"]["router.fallback.from"], fell["properties"]["router.target"]) == ("one", "two")
    assert fell["properties"]["error.type"] == "Unavailable"


@pytest.mark.parametrize("kind", INSIGHTS)
def test_a_request_that_nobody_answered_says_why(theatre: Theatre, kind: str):
    theatre.serve(kind, theatre.stage.standin(name="one", fault=Fault("status", status=503)))
    for _ in range(6):
        assert theatre.stage.ask().status_code in (502, 503)
    got = theatre.endpoint
    got.until(lambda: len(got.items("RequestData")) == 6)
    bodies = [each["data"]["baseData"] for each in got.items("RequestData")]
    assert [body["success"] for body in bodies] == [False] * 6
    assert [body["properties"]["error.type"] for body in bodies] == ["AllFailed"] * 5 + ["NoTarget"]
    assert {body["properties"]["router.route"] for body in bodies} == {"chat"}


@pytest.mark.parametrize("kind", INSIGHTS)
def test_metrics_add_up_to_what_was_used_after_two_exports(theatre: Theatre, kind: str):
    theatre.fall_back(kind, times=2)
    got = theatre.endpoint
    one = theatre.stage.ask().json()["usage"]
    got.until(lambda: got.total("llm.cost.tokens", OUTPUT) == 3 * one["completion_tokens"])
    for _ in range(2):
        assert theatre.stage.ask().status_code == 200
    got.until(lambda: got.total("llm.cost.tokens", OUTPUT) == 5 * one["completion_tokens"])
    seen = len(got.arrived)
    got.until(lambda: len(got.arrived) >= seen + 2)  # two more, in which nothing is said twice
    assert got.total("llm.cost.tokens", OUTPUT) == 5 * one["completion_tokens"]
    usd = (one["prompt_tokens"] * PRICE["input"] + one["completion_tokens"] * PRICE["output"]) / 1e6
    assert got.total("llm.cost.usd", {"router.target": "two"}) == pytest.approx(5 * usd)
    assert got.total("llm.cost.saved_usd", {"router.target": "two"}) == pytest.approx(5 * usd)
    assert got.total("llm.provider.errors", {"router.target": "one", "error.type": "Unavailable"}) == 5


@pytest.mark.parametrize("kind", INSIGHTS)
def test_lines_of_the_log_become_traces_where_that_is_wanted(theatre: Theatre, kind: str):
    broken = theatre.stage.standin(name="one")
    theatre.serve(kind, broken, telemetry={**QUICK, "logs": True})
    got = theatre.endpoint
    assert theatre.stage.ask().status_code == 200
    import logging

    logging.getLogger("routing.test").warning("Something is odd")
    got.until(lambda: bool(got.items("MessageData")))
    (line,) = [each["data"]["baseData"] for each in got.items("MessageData")]
    assert (line["message"], line["severityLevel"]) in {("Something is odd", 2), ("Something is odd", "Warning")}
    assert line["properties"]["router.logger"] == "routing.test"


def test_a_collector_gets_spans_records_and_metrics(theatre: Theatre):
    theatre.fall_back("otlp", times=2)
    got = theatre.endpoint
    got.until(lambda: len(got.spans()) == 6 and len(got.records()) >= 4 and "llm.cost.usd" in got.metrics())
    servers = [span for span in got.spans() if span.kind == 2]
    assert {span.trace_id for span in got.spans()} == {span.trace_id for span in servers}
    calls = {attributes(span)["router.target"] for span in got.spans() if span.kind == 3}
    assert calls == {"one", "two"}
    assert {record.event_name for record in got.records()} == {"llm.routing.decision", "llm.fallback.used"}
    got.until(lambda: got.metrics()["llm.provider.errors"][-1].as_int == 2)  # these count from the beginning


def names_of(got: Ingestion) -> set[str]:
    """Of all metrics and events that arrived."""
    if any(each.path.startswith("/v1/") for each in got.arrived):
        return {*got.metrics(), *(record.event_name for record in got.records())}
    metrics = {point["name"] for each in got.items("MetricData") for point in each["data"]["baseData"]["metrics"]}
    return metrics | {each["data"]["baseData"]["name"] for each in got.items("EventData")}


@pytest.mark.parametrize("kind", EVERY)
def test_every_metric_arrives_under_its_name(theatre: Theatre, kind: str):
    theatre.fall_back(kind, stream=True, max_tokens=50)
    wanted = {metric.name for metric in telemetry_names.METRICS} - {telemetry_names.LOST.name}
    wanted |= {telemetry_names.DECIDED, telemetry_names.FELL_BACK}
    wanted |= {telemetry_names.STREAM_STARTED, telemetry_names.STREAM_COMPLETED}
    theatre.endpoint.until(lambda: wanted <= names_of(theatre.endpoint))


@pytest.mark.parametrize("kind", EVERY)
def test_a_request_stays_in_the_trace_of_its_caller(theatre: Theatre, kind: str):
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    one = theatre.stage.standin(name="one")
    theatre.serve(kind, one)
    with theatre.stage.http() as client:
        client.post(CHAT_PATH, json=CHAT, headers={"traceparent": f"00-{trace}-{span}-01"})
    got = theatre.endpoint
    called = dict(one.requests[0].asked.headers)["traceparent"].split("-")
    if kind == "otlp":
        got.until(lambda: len(got.spans()) == 2 and len(got.records()) == 1)
        (served,), (call,) = ([each for each in got.spans() if each.kind == sort] for sort in (2, 3))
        (event,) = got.records()
        seen = [each.trace_id.hex() for each in (served, call, event)]
        parents = [served.parent_span_id.hex(), call.parent_span_id.hex(), event.span_id.hex()]
        ids = [served.span_id.hex(), call.span_id.hex()]
    else:
        kinds = ("RequestData", "RemoteDependencyData", "EventData")
        got.until(lambda: all(len(got.items(each)) == 1 for each in kinds))
        served, call, event = (got.items(each)[0] for each in kinds)
        seen = [each["tags"]["ai.operation.id"] for each in (served, call, event)]
        parents = [each["tags"]["ai.operation.parentId"] for each in (served, call, event)]
        ids = [served["data"]["baseData"]["id"], call["data"]["baseData"]["id"]]
    assert [called[1], *seen] == [trace] * 4
    assert parents == [span, ids[0], ids[0]]
    assert called[2] == ids[1]


def test_nothing_of_prompt_or_answer_is_sent(theatre: Theatre):
    theatre.fall_back("opencensus", messages=[{"role": "user", "content": "the launch code is 0451"}])
    got = theatre.endpoint
    got.until(lambda: bool(got.items("RequestData")) and bool(got.items("MetricData")) and bool(got.items("EventData")))
    assert "launch code" not in repr(got.arrived)


@pytest.mark.parametrize("kind", INSIGHTS)
def test_an_admin_sees_that_nothing_arrives_and_which_role_mends_it(theatre: Theatre, kind: str):
    def told() -> dict[str, Any]:
        with theatre.stage.http() as http:
            return {check["name"]: check for check in http.get("/ready").json()["checks"]}["telemetry"]

    theatre.endpoint.status = 403
    theatre.serve(kind, theatre.stage.standin(), callers={"tester": {"key": "env:ROUTER_TEST_CALLER", "role": "admin"}})
    assert theatre.stage.ask().status_code == 200
    until(lambda: not told()["ok"])
    assert 'give the identity the role "Monitoring Metrics Publisher"' in told()["detail"]
    theatre.endpoint.status = 200
    assert theatre.stage.ask().status_code == 200
    until(lambda: told() == {"name": "telemetry", "ok": True, "detail": ""})


@pytest.mark.parametrize("kind", EVERY)
def test_requests_are_answered_while_the_backend_hangs(theatre: Theatre, kind: str):
    got = theatre.endpoint
    got.gate.clear()
    theatre.fall_back(kind)
    got.until(lambda: got.asked == 1)  # it hangs from here on
    before = got.asked
    for _ in range(20):
        assert theatre.stage.ask().status_code == 200
    assert (got.asked, got.arrived) == (before, [])
    got.gate.set()
    got.until(lambda: bool(got.arrived))


class Desk:
    """A monitor by itself, with things to send."""

    def __init__(self, kind: Any, endpoint: Ingestion, environment: Mapping[str, str] | None = None) -> None:
        self.telemetry = Telemetry(active=True)

        def connect(tracers: Any, meters: Any, loggers: Any, ids: GivenIds) -> Recorder:
            return Recorder(tracers, meters, loggers, ids, {"one": Place("openai", "m")}, self._lost)

        given = {monitor.CONNECTION: endpoint.connection_string, **(environment or {})}
        self.monitor = Monitor(kind, given, self.telemetry, connect, interval=0.02, metrics_interval=3_600)

    def _lost(self) -> int:
        return self.telemetry.lost

    def tell(self, count: int) -> None:
        for number in range(count):
            self.telemetry.tell(Note("llm.secret.refreshed", {"router.secret": f"s{number}"}))


@pytest.fixture
def pointed_at(endpoint: Ingestion, monkeypatch: pytest.MonkeyPatch) -> Ingestion:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.url)
    monkeypatch.setattr(monitor, "TRIES", 2)
    return endpoint


def events_of(got: Ingestion) -> int:
    return len(got.records()) if got.arrived and got.arrived[0].path == "/v1/logs" else len(got.items("EventData"))


@pytest.mark.parametrize("kind", EVERY)
async def test_what_happens_to_breakers_and_the_store_arrives_under_its_name(pointed_at: Ingestion, kind: str):
    desk = Desk(kind, pointed_at)
    for about in telemetry_names.HEALTH_EVENTS:
        desk.telemetry.tell(Event(about, "one", 5.0, here=True, detail="Unavailable"))
    desk.telemetry.tell(Event("opened", "one", 6.0, here=False))
    desk.telemetry.refreshed("a-key")
    desk.telemetry.lost = 3
    desk.monitor.start()
    await asyncio.to_thread(pointed_at.until, lambda: events_of(pointed_at) == len(telemetry_names.HEALTH_EVENTS) + 1)
    await desk.monitor.close()
    wanted = {*telemetry_names.HEALTH_EVENTS.values(), telemetry_names.SECRET_REFRESHED}
    wanted |= {telemetry_names.BREAKER.name, telemetry_names.LOST.name}
    assert names_of(pointed_at) == wanted
    assert values_of(pointed_at, telemetry_names.BREAKER.name) == [2]
    assert values_of(pointed_at, telemetry_names.LOST.name) == [3]


def values_of(got: Ingestion, metric: str) -> list[float]:
    """What arrived last of a metric, of each set of dimensions."""
    if any(each.path.startswith("/v1/") for each in got.arrived):
        return [point.as_double or point.as_int for point in got.metrics()[metric]]
    points = [each["data"]["baseData"]["metrics"][0] for each in got.items("MetricData")]
    return [point["value"] for point in points if point["name"] == metric]


@pytest.mark.parametrize("status", [400, 429, 439, 503])
@pytest.mark.parametrize("kind", INSIGHTS)
async def test_what_the_backend_does_not_take_is_dropped_with_a_count(pointed_at: Ingestion, kind: str, status: int):
    pointed_at.status = status
    desk = Desk(kind, pointed_at)
    desk.tell(10)
    desk.monitor.start()
    await asyncio.to_thread(until, lambda: desk.telemetry.lost == 10)
    pointed_at.status = 200
    desk.tell(3)
    await asyncio.to_thread(pointed_at.until, lambda: events_of(pointed_at) == 3)
    await desk.monitor.close()
    assert pointed_at.total("llm.telemetry.dropped") == 10


@pytest.mark.parametrize("kind", EVERY)
async def test_what_fails_once_is_sent_again(pointed_at: Ingestion, kind: str, caplog: pytest.LogCaptureFixture):
    pointed_at.status = 500
    desk = Desk(kind, pointed_at)
    desk.tell(10)
    desk.monitor.start()
    await asyncio.to_thread(pointed_at.until, lambda: pointed_at.asked >= 1)
    pointed_at.status = 200
    await asyncio.to_thread(pointed_at.until, lambda: events_of(pointed_at) == 10)
    await desk.monitor.close()
    assert desk.telemetry.lost == 0


@pytest.mark.parametrize("kind", EVERY)
async def test_what_is_left_is_sent_at_the_end(pointed_at: Ingestion, kind: str):
    desk = Desk(kind, pointed_at)
    desk.monitor._interval = 3_600
    desk.monitor.start()
    desk.tell(3)
    await desk.monitor.close()
    assert events_of(pointed_at) == 3
    assert not [thread for thread in threading.enumerate() if thread.name == "telemetry"]


@pytest.mark.parametrize("kind", INSIGHTS)
def test_a_process_that_ends_in_its_first_second_still_tells_what_it_did(endpoint: Ingestion, kind: str):
    """On Python 3.12 and later an interpreter that ends starts no thread any more."""
    code = (
        "import os, sys\n"
        "from routing.cloud.monitor import Monitor\n"
        "from routing.recording import Recorder\n"
        "from routing.telemetry import Note, Telemetry\n"
        "told = Telemetry(active=True)\n"
        "connect = lambda *sdk: Recorder(*sdk, {}, lambda: told.lost)\n"
        "monitor = Monitor(sys.argv[1], os.environ, told, connect, interval=60, metrics_interval=60)\n"
        "monitor.start()\n"
        "monitor.hurry()\n"
        "told.tell(Note('llm.secret.refreshed', {}))\n"
    )
    environment = {**os.environ, monitor.CONNECTION: endpoint.connection_string}
    command = [sys.executable, "-c", code, kind]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60)
    assert len(endpoint.named("EventData", "llm.secret.refreshed")) == 1


async def test_a_process_that_is_told_to_end_sends_as_it_goes(pointed_at: Ingestion):
    desk = Desk("otlp", pointed_at)
    desk.monitor._interval = 3_600
    desk.monitor.start()
    desk.tell(1)
    desk.monitor.hurry()
    await asyncio.to_thread(pointed_at.until, lambda: events_of(pointed_at) == 1)
    desk.tell(1)
    await asyncio.to_thread(pointed_at.until, lambda: events_of(pointed_at) == 2)
    await desk.monitor.close()


async def test_without_a_sound_connection_string_nothing_is_sent_and_requests_go_on(
    endpoint: Ingestion, caplog: pytest.LogCaptureFixture
):
    desk = Desk("opencensus", endpoint, {monitor.CONNECTION: "InstrumentationKey=nonsense"})
    desk.monitor.start()
    await asyncio.to_thread(until, lambda: not desk.telemetry.active)
    await desk.monitor.close()
    assert "Telemetry is off, because opencensus cannot be used" in caplog.text
    assert str(desk.monitor.trouble()).startswith("opencensus cannot be used: ")
    assert "nonsense" not in caplog.text


@pytest.mark.parametrize("kind", ["opencensus"])
async def test_the_apps_identity_lets_it_in(endpoint: Ingestion, vault: Vault, kind: str):
    entra = {insights.AUTHENTICATION: f"Authorization=AAD;ClientId={CLIENT_ID}"}
    desk = Desk(kind, endpoint, entra)
    desk.tell(1)
    desk.monitor.start()
    await asyncio.to_thread(endpoint.until, lambda: bool(endpoint.arrived))
    await desk.monitor.close()
    assert vault.asked[0]["client_id"] == CLIENT_ID
    assert "monitor.azure.com" in vault.asked[0]["resource"]
    assert endpoint.arrived[0].headers["Authorization"] == f"Bearer {vault.given[-1]}"


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        pytest.param({}, "none", id="nothing-said"),
        pytest.param({monitor.CONNECTION: "InstrumentationKey=x"}, "opencensus", id="application-insights"),
        pytest.param({monitor.CONNECTION: "InstrumentationKey=x", monitor.CHOICE: "none"}, "none", id="switched-off"),
        pytest.param({monitor.CHOICE: " OTLP "}, "otlp", id="chosen"),
        pytest.param({monitor.CHOICE: "azuremonitor"}, "azuremonitor", id="the-other-package"),
    ],
)
def test_one_setting_chooses(environment: Mapping[str, str], kind: str):
    assert monitor.chosen(environment) == kind


def test_a_choice_that_there_is_not_is_refused_with_the_reason(stage: Stage, serve_app: ServeApp, tmp_path: Path):
    path = tmp_path / "routes.toml"
    path.write_text(routes_for([stage.standin(name="one")]))
    keys = {"ROUTER_TEST_CALLER": KEY, "ROUTER_TEST_PROVIDER": PROVIDER_KEY}
    stage.url = serve_app({"ROUTER_CONFIG": str(path), "ROUTER_TELEMETRY": "prometheus", **keys})
    with stage.http() as client:
        health = client.get("/health")
    assert health.status_code == 503
    assert health.json()["errors"] == [
        "ROUTER_TELEMETRY: there is no 'prometheus'; write one of opencensus, azuremonitor, otlp, none"
    ]


def test_without_telemetry_no_thread_runs(stage: Stage):
    stage.serve(stage.standin(name="one"))
    assert stage.ask(messages=HELLO).status_code == 200
    assert not [thread for thread in threading.enumerate() if thread.name == "telemetry"]
    assert CHAT["model"] == "chat"
