"""What is told of a request on its way, and what OpenTelemetry makes of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from local.standin_behaviour import Fault
from routing import logs, telemetry_names, trace
from routing.errors import TooSlow
from routing.recording import OTHER, Bounded, Place, Recorder
from routing.sharing import Event
from routing.telemetry import Note, Telemetry, TelemetrySettings
from routing.trace import Exchange, GivenIds, Notes, Trace, begun
from routing.types import Attempt, Choice, Cost, Decision, Exclusion, Facts, Outcome, Plan, Task, Usage
from routing.wire import ChatRequest
from tests.routes_for import CHAT, ONCE, Stage

PATH = "/v1/chat/completions"
CALLERS_TRACE, CALLERS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01"
PLACES = {"one": Place("openai", "m1", "one.example", 443), "two": Place("anthropic", "m2", "two.example", 443)}


class Desk:
    """A telemetry, a recorder that listens to it, and what came of that."""

    def __init__(self, settings: TelemetrySettings | None = None) -> None:
        self.telemetry = Telemetry(active=True, settings=settings)
        self.spans_exporter, self.records_exporter = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self.reader = InMemoryMetricReader()
        ids: Any = GivenIds()
        tracers = TracerProvider(shutdown_on_exit=False, id_generator=ids)
        tracers.add_span_processor(SimpleSpanProcessor(self.spans_exporter))
        loggers = LoggerProvider(shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self.records_exporter))
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.recorder = Recorder(tracers, meters, loggers, ids, PLACES, lambda: self.telemetry.lost)

    def begin(self, **headers: str) -> Notes:
        return Notes(self.telemetry.exchange("req_1", PATH, headers))

    def turn(self) -> None:
        while (thing := self.telemetry.take()) is not None:
            self.recorder.record(thing)
        self.recorder.before_sending()

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        self.turn()
        return {span.name: span for span in self.spans_exporter.get_finished_spans()}

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        self.turn()
        records = [each.log_record for each in self.records_exporter.get_finished_logs()]
        return {record.event_name: dict(record.attributes or {}) for record in records if record.event_name}

    @property
    def metrics(self) -> dict[str, list[Any]]:
        self.turn()
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


@pytest.fixture
def desk() -> Iterator[Desk]:
    yield Desk()
    trace.current.set(None)
    trace.outgoing.set({})


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.parse(json.dumps({**CHAT, **fields}).encode())


def decision(**fields: Any) -> Decision:
    task = Task("planning", 0.75, "it says so")
    plan = Plan("auto", "task", task, (Choice("one", 1, "first"), Choice("two", 0, "next")), (Exclusion("x", "open"),))
    given: dict[str, Any] = {
        "target": "two",
        "usage": Usage(10, 5, cached=2),
        "cost": Cost(1_500, "2026-11", 500),
        "seconds": 0.5,
    }
    return Decision("dec_1", 1.0, "app", "auto", plan, Facts(task, 10, 5), **{**given, **fields})


async def fallback(notes: Notes, asked: ChatRequest, **fields: Any) -> None:
    """One call that fails, and one to another target that answers."""

    async def failing() -> None:
        raise TooSlow("no answer")

    async def answering() -> str:
        return "hello"

    with pytest.raises(TooSlow):
        await notes.around("one", failing())
    assert await notes.around("two", answering()) == "hello"
    attempts = (Attempt("one", 1, Outcome.FAULT, 0.1, "TooSlow"),)
    first = 0.2 if asked.stream else None
    made = decision(attempts=attempts, first_token_seconds=first)
    notes.end(made, asked, model="m2-2026", overhead_seconds=0.002, **fields)


def answered(notes: Notes, status: int = 200, **more: Any) -> None:
    assert notes.exchange is not None
    notes.exchange.answered(status, **more)


async def test_a_request_is_a_span_with_one_under_it_for_each_call(desk: Desk):
    notes = desk.begin(traceparent=PARENT)
    await fallback(notes, request(max_tokens=100, temperature=0.5))
    answered(notes)
    spans = desk.spans
    served, failed, good = spans[f"POST {PATH}"], spans["chat m1"], spans["chat m2"]
    assert {span.context.trace_id for span in spans.values()} == {int(CALLERS_TRACE, 16)}
    assert served.parent.span_id == int(CALLERS_SPAN, 16)
    assert {failed.parent.span_id, good.parent.span_id} == {served.context.span_id}
    assert (served.kind, failed.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert (failed.status.status_code, good.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert served.start_time <= failed.start_time <= failed.end_time <= good.start_time <= served.end_time


async def test_the_attributes_follow_the_conventions_and_add_what_the_router_decided(desk: Desk):
    notes = desk.begin()
    await fallback(notes, request(max_tokens=100, temperature=0.5))
    answered(notes)
    served, good = dict(desk.spans[f"POST {PATH}"].attributes), dict(desk.spans["chat m2"].attributes)
    assert (
        served
        | {
            "http.request.method": "POST",
            "http.route": PATH,
            "http.response.status_code": 200,
            "gen_ai.operation.name": "chat",
            "gen_ai.request.max_tokens": 100,
            "gen_ai.request.temperature": 0.5,
            "router.route": "auto",
            "router.strategy": "task",
            "router.task": "planning",
            "router.task.confidence": 0.75,
            "router.target": "two",
            "router.outcome": "answered",
            "router.attempts": 2,
            "router.excluded": 1,
            "router.cost.micro_usd": 1_500,
            "router.cost.saved_micro_usd": 500,
            "router.decision_id": "dec_1",
            "router.request_id": "req_1",
        }
        == served
    )
    assert (
        good
        | {
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "m2",
            "gen_ai.response.model": "m2-2026",
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.usage.cache_read.input_tokens": 2,
            "server.address": "two.example",
            "router.attempt": 2,
        }
        == good
    )
    assert dict(desk.spans["chat m1"].attributes)["error.type"] == "TooSlow"


async def test_metrics_add_up(desk: Desk):
    for _ in range(2):
        notes = desk.begin()
        await fallback(notes, request())
        answered(notes)
    metrics = desk.metrics
    tokens = {point.attributes["gen_ai.token.type"]: point.value for point in metrics["llm.cost.tokens"]}
    assert tokens == {"input": 20, "output": 10}
    (usd,), (saved,), (errors,) = (
        metrics[name] for name in ("llm.cost.usd", "llm.cost.saved_usd", "llm.provider.errors")
    )
    assert (usd.value, saved.value) == (pytest.approx(0.003), pytest.approx(0.001))
    assert dict(usd.attributes) == {
        "router.target": "two",
        "router.task": "planning",
        "router.caller": "app",
        "router.route": "auto",
    }
    assert (errors.value, dict(errors.attributes)) == (2, {"router.target": "one", "error.type": "TooSlow"})
    calls = {point.attributes["router.target"]: point.count for point in metrics["llm.provider.latency"]}
    assert calls == {"one": 2, "two": 2}
    assert metrics["gen_ai.server.request.duration"][0].count == metrics["llm.router.overhead"][0].count == 2
    assert {point.sum for point in metrics["gen_ai.client.token.usage"]} == {20, 10}


async def test_a_fallback_and_the_decision_are_events(desk: Desk):
    notes = desk.begin()
    await fallback(notes, request())
    answered(notes)
    events = desk.events
    assert set(events) == {"llm.routing.decision", "llm.fallback.used"}
    fell = events["llm.fallback.used"]
    assert (fell["router.fallback.from"], fell["router.target"], fell["error.type"]) == ("one", "two", "TooSlow")


async def test_a_stream_is_told_at_its_end_from_another_task(desk: Desk):
    notes = desk.begin()
    answered(notes, streaming=True)
    await asyncio.create_task(fallback(notes, request(stream=True), tokens=5))
    events, metrics = desk.events, desk.metrics
    assert events["llm.streaming.started"]["router.target"] == "two"
    assert events["llm.streaming.completed"]["gen_ai.usage.output_tokens"] == 5
    assert metrics["llm.streaming.tokens"][0].value == 5
    assert metrics["gen_ai.client.operation.time_to_first_chunk"][0].count == 1


async def test_a_request_that_was_never_routed_is_a_span_and_nothing_else(desk: Desk):
    answered(desk.begin(), 401, error="Unauthenticated")
    attributes = dict(desk.spans[f"POST {PATH}"].attributes)
    assert (attributes["http.response.status_code"], attributes["error.type"]) == (401, "Unauthenticated")
    assert "router.route" not in attributes
    assert desk.events == {}


async def test_a_walk_that_outlives_its_request_is_still_counted(desk: Desk):
    notes = desk.begin()
    answered(notes, 499, error="CallerLeft")
    await fallback(notes, request())
    assert len(desk.spans_exporter.get_finished_spans()) == 0
    desk.turn()
    names = [span.name for span in desk.spans_exporter.get_finished_spans()]
    assert names == [f"POST {PATH}", "chat m1", "chat m2"]
    assert desk.metrics["llm.cost.usd"][0].value == pytest.approx(0.0015)


async def test_an_answer_from_the_cache_costs_nothing_and_saves_all(desk: Desk):
    notes = desk.begin()
    notes.end(decision(from_cache=True, cost=Cost(0, "2026-11", 2_000)), request())
    answered(notes)
    metrics = desk.metrics
    assert metrics["gen_ai.server.request.duration"][0].count == 1
    assert metrics["llm.cost.saved_usd"][0].value == pytest.approx(0.002)
    assert not {"llm.cost.usd", "llm.cost.tokens", "llm.provider.latency"} & metrics.keys()


async def test_a_caller_who_leaves_is_no_error(desk: Desk):
    notes = desk.begin()

    async def slow() -> None:
        await asyncio.Event().wait()

    call = asyncio.create_task(notes.around("one", slow()))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    notes.end(decision(target=None, usage=None, cost=None, error="CallerLeft"), request())
    answered(notes, 499, error="CallerLeft")
    assert desk.spans["chat m1"].status.status_code is StatusCode.UNSET
    assert "llm.provider.errors" not in desk.metrics


async def test_a_call_that_was_ended_for_being_slow_is_told_as_that(desk: Desk):
    notes = desk.begin()

    async def slow() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await notes.around("one", slow())
    attempt = Attempt("one", 1, Outcome.FAULT, 30.0, "TooSlow")
    notes.end(decision(attempts=(attempt,), target=None, usage=None, cost=None, error="AllFailed"), request())
    answered(notes, 504, error="AllFailed")
    assert dict(desk.spans["chat m1"].attributes)["error.type"] == "TooSlow"
    (errors,) = desk.metrics["llm.provider.errors"]
    assert dict(errors.attributes) == {"router.target": "one", "error.type": "TooSlow"}


@pytest.mark.parametrize("kind", sorted(telemetry_names.HEALTH_EVENTS))
def test_the_instance_at_which_it_happened_tells_it(desk: Desk, kind: Any):
    desk.telemetry.tell(Event(kind, "one", 5.0, here=True, detail="Unavailable"))
    desk.telemetry.tell(Event(kind, "two", 5.0, here=False))
    desk.turn()
    told = [each.log_record for each in desk.records_exporter.get_finished_logs()]
    assert [record.event_name for record in told] == [telemetry_names.HEALTH_EVENTS[kind]]
    assert dict(told[0].attributes) == {"router.target": "one", "router.detail": "Unavailable"}


def test_the_state_of_every_breaker_is_a_gauge_also_when_others_told_it(desk: Desk):
    desk.telemetry.tell(Event("opened", "two", 5.0, here=False))
    states = {point.attributes["router.target"]: point.value for point in desk.metrics["llm.circuit_breaker.state"]}
    assert states == {"one": 0, "two": 2}


async def test_all_that_is_recorded_has_its_name_in_the_one_table(desk: Desk):
    notes = desk.begin()
    await fallback(notes, request(stream=True), tokens=5)
    answered(notes, streaming=True)
    desk.telemetry.tell(Event("opened", "one", 5.0, here=True, detail="Unavailable"))
    desk.telemetry.refreshed("a-key")
    desk.telemetry.lost += 1
    spans, events, metrics = desk.spans, desk.events, desk.metrics
    attributes = {name for span in spans.values() for name in span.attributes}
    attributes |= {name for event in events.values() for name in event}
    attributes |= {name for points in metrics.values() for point in points for name in point.attributes}
    assert attributes | events.keys() | metrics.keys() <= telemetry_names.EMITTED
    assert metrics.keys() == {metric.name for metric in telemetry_names.METRICS}


async def test_prompts_and_answers_are_recorded_only_when_a_setting_says_so(desk: Desk):
    talking = Desk(TelemetrySettings(record_content=True, content_characters=100))
    for each in (desk, talking):
        notes = each.begin()
        await fallback(
            notes, request(messages=[{"role": "user", "content": "a secret plan " * 50}]), answer=b'{"a":"fine"}'
        )
        answered(notes)
    served = dict(talking.spans[f"POST {PATH}"].attributes)
    assert served["gen_ai.input.messages"].startswith('[{"role":"user","content":"a secret plan')
    assert len(served["gen_ai.input.messages"]) == 100
    assert served["gen_ai.output.messages"] == '{"a":"fine"}'
    assert "secret plan" not in repr([dict(span.attributes) for span in desk.spans.values()])
    assert "secret plan" not in repr(desk.events)


def test_what_finds_no_room_is_dropped_and_counted():
    telemetry = Telemetry(active=True, kept=2)
    for name in "abc":
        telemetry.tell(Note(name, {}))
    assert [telemetry.take().name, telemetry.take().name, telemetry.take()] == ["a", "b", None]
    assert telemetry.lost == 1


def test_nothing_waits_where_nobody_listens():
    telemetry = Telemetry(active=False)
    telemetry.tell(Note("a", {}))
    assert (telemetry.take(), telemetry.lost) == (None, 0)


def test_a_dimension_has_only_so_many_values():
    bounded = Bounded(most=2)
    seen = [bounded({"model": name})["model"] for name in ("a", "b", "c", "a")]
    assert seen == ["a", "b", OTHER, "a"]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("", id="missing"),
        pytest.param("garbage", id="unreadable"),
        pytest.param(f"ff-{CALLERS_TRACE}-{CALLERS_SPAN}-01", id="forbidden-version"),
        pytest.param(f"00-{'0' * 32}-{CALLERS_SPAN}-01", id="no-trace"),
        pytest.param(f"00-{CALLERS_TRACE}-{'0' * 16}-01", id="no-span"),
        pytest.param(f"{PARENT}-more", id="too-long"),
        pytest.param(PARENT.upper(), id="upper-case"),
    ],
)
def test_a_trace_that_cannot_be_gone_on_with_begins_anew(given: str):
    trace_begun = begun({"traceparent": given, "tracestate": "a=b"})
    assert (trace_begun.parent, trace_begun.state) == (None, "")
    assert trace_begun.id != CALLERS_TRACE


def test_the_callers_trace_goes_on_as_it_came():
    gone_on = begun({"traceparent": f"01-{CALLERS_TRACE}-{CALLERS_SPAN}-00-later", "tracestate": "vendor=1"})
    assert (gone_on.id, gone_on.parent, gone_on.flags, gone_on.state) == (CALLERS_TRACE, CALLERS_SPAN, "00", "vendor=1")
    assert gone_on.headers("a" * 16) == {"traceparent": f"00-{CALLERS_TRACE}-{'a' * 16}-00", "tracestate": "vendor=1"}


def test_a_tracestate_that_could_end_its_header_is_left_out():
    assert begun({"traceparent": PARENT, "tracestate": "a=b\r\nx: y"}).state == ""


@pytest.mark.parametrize("stream", [False, True])
def test_each_call_to_a_provider_is_part_of_the_callers_trace(stage: Stage, stream: bool):
    first, second = stage.standin(name="one"), stage.standin(name="two")
    first.behave(fault=Fault("status", status=503))
    stage.serve(first, second, route={"retry": ONCE})
    with stage.http() as client:
        answer = client.post(
            PATH, json={**CHAT, "stream": stream}, headers={"traceparent": PARENT, "tracestate": "v=1"}
        )
    assert answer.status_code == 200
    sent = [dict(standin.requests[-1].asked.headers) for standin in (first, second)]
    found = [trace._TRACEPARENT.fullmatch(each["traceparent"]) for each in sent]
    assert [each and each[2] for each in found] == [CALLERS_TRACE, CALLERS_TRACE]
    assert len({each and each[3] for each in found} | {CALLERS_SPAN}) == 3
    assert {each["tracestate"] for each in sent} == {"v=1"}


def test_log_lines_are_json_with_the_id_of_their_request(caplog: pytest.LogCaptureFixture):
    told: list[Any] = []
    undo = logs.install(told.append)
    try:
        trace.current.set(Exchange("req_7", PATH, Trace("a" * 32, "b" * 16), print))
        logging.getLogger("routing.anything").warning("It %s", "broke", extra={"target": "one"})
    finally:
        trace.current.set(None)
        undo()
    (line,) = [json.loads(message) for message in caplog.messages]
    assert line.pop("time")
    assert line == {
        "level": "WARNING",
        "logger": "routing.anything",
        "message": "It broke",
        "request_id": "req_7",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "target": "one",
    }
    assert [(each.level, each.message, each.request_id) for each in told] == [("WARNING", "It broke", "req_7")]


def test_an_exception_in_the_log_is_one_line_too(caplog: pytest.LogCaptureFixture):
    undo = logs.install()
    try:
        raise ValueError("of no use")
    except ValueError:
        logging.getLogger("routing.anything").exception("It broke")
    finally:
        undo()
    line = json.loads(caplog.messages[0])
    assert line["exception"].endswith("ValueError: of no use")
    assert "request_id" not in line
