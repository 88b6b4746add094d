"""Turns what was told into spans, metrics and events, by OpenTelemetry's API alone. Runs beside the requests.

A request is a span of kind SERVER, each of its calls one of kind CLIENT under it. Both are recorded when the request is
over, with the ids that were given out, and the times that were taken, on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from opentelemetry import trace as otel
from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TracerProvider

from routing import telemetry_names as names
from routing.recorded import NANO, Attributes, about, events, first, of_answer, of_request, operation, some
from routing.sharing import Event
from routing.telemetry import Anything, Line, Note
from routing.telemetry_names import BREAKER_STATES, HEALTH_EVENTS, METRICS, Metric
from routing.trace import CALLER_LEFT, Call, GivenIds, Told, Trace, Walked

MOST_VALUES = 200  # of one dimension that is not a number; what comes after them is counted together
OTHER = "(other)"
_LEVELS = {
    "DEBUG": SeverityNumber.DEBUG,
    "INFO": SeverityNumber.INFO,
    "WARNING": SeverityNumber.WARN,
    "ERROR": SeverityNumber.ERROR,
    "CRITICAL": SeverityNumber.FATAL,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target's provider is, and what the conventions call it."""

    provider: str
    model: str
    address: str = ""
    port: int = 0

    def attributes(self) -> Attributes:
        return {names.PROVIDER: self.provider, names.REQUEST_MODEL: self.model}

    def where(self) -> Attributes:
        return {names.ADDRESS: self.address, names.PORT: self.port} if self.address else {}


class Instrument(Protocol):
    """A counter or a histogram."""

    def __call__(self, amount: float, attributes: Attributes) -> None: ...


@dataclass(slots=True)
class Bounded:
    """Keeps each dimension to so many values, whoever names them."""

    most: int = MOST_VALUES
    seen: dict[str, set[str]] = field(default_factory=dict)

    def __call__(self, attributes: Attributes) -> Attributes:
        return {key: self._value(key, value) for key, value in attributes.items() if value is not None}

    def _value(self, key: str, value: Any) -> Any:
        known = self.seen.setdefault(key, set())
        text = str(value)
        if text in known or len(known) < self.most:
            known.add(text)
            return value
        return OTHER


class Recorder:
    """`lost` gives the number of things that were dropped so far; `places` are the targets by name."""

    def __init__(
        self,
        tracers: TracerProvider,
        meters: MeterProvider,
        logs: LoggerProvider,
        ids: GivenIds,
        places: Mapping[str, Place],
        lost: Callable[[], int],
    ) -> None:
        self._tracer, self._log = tracers.get_tracer(names.SCOPE), logs.get_logger(names.SCOPE)
        self._ids, self._places, self._lost, self._told_lost = ids, places, lost, 0
        self._bounded = Bounded()
        self._states = dict.fromkeys(places, BREAKER_STATES["closed"])
        meter = meters.get_meter(names.SCOPE)
        self._meters: dict[str, Instrument] = {
            metric.name: _instrument(meter, metric) for metric in METRICS if metric.kind != "gauge"
        }
        gauge = names.BREAKER
        meter.create_observable_gauge(gauge.name, [self._breakers], unit=gauge.unit, description=gauge.says)

    def record(self, thing: Anything) -> None:
        """One thing that was told."""
        if isinstance(thing, Told):
            self._request(thing)
        elif isinstance(thing, Event):
            self._health(thing)
        elif isinstance(thing, Note):
            self._event(thing.name, dict(thing.attributes), thing.at)
        else:
            self._line(thing)

    def before_sending(self) -> None:
        """What is counted elsewhere."""
        lost = self._lost()
        self._count(names.LOST, lost - self._told_lost, {})
        self._told_lost = lost

    def _request(self, told: Told) -> None:
        walked = told.walked
        decided = about(walked.decision) if walked else {}
        error = told.error or (walked.decision.error if walked else None)
        within = self._span_of_request(told, decided, error)
        if walked is None:
            return
        for number, call in enumerate(walked.calls, 1):
            self._call(told, walked, call, number, within)
        if told.status is not None:
            self._served(told, walked, error)
        self._paid(walked)
        for name, attributes, at in events(told, walked):
            self._event(name, {**attributes, names.REQUEST_ID: told.id}, at, within)

    def _span_of_request(self, told: Told, decided: Attributes, error: str | None) -> Context:
        """Records it unless only the walk is told, and returns what its calls are recorded under."""
        if told.status is not None:
            self._ids.trace, self._ids.span = told.trace.id, told.trace.span
            span = self._tracer.start_span(
                f"POST {told.path}",
                context=_parent(told.trace, told.trace.parent),
                kind=SpanKind.SERVER,
                attributes={**of_request(told), **decided, **some({names.ERROR: error})},
                start_time=told.started,
            )
            if told.status >= 500 or (told.status < 400 and error not in (None, CALLER_LEFT)):
                span.set_status(Status(StatusCode.ERROR, error))
            span.end(told.ended)
        return _parent(told.trace, told.trace.span)

    def _call(self, told: Told, walked: Walked, call: Call, number: int, within: Context) -> None:
        place = self._places.get(call.target)
        ended = call.ended or told.ended
        answered = call is walked.calls[-1] and walked.decision.target is not None
        common = {names.OPERATION: operation(told), **(place.attributes() if place else {}), names.TARGET: call.target}
        failed = some({names.ERROR: call.error})
        where = place.where() if place else {}
        attributes = {**common, **where, **failed, names.ATTEMPT: number, names.STREAM: walked.asked.stream}
        self._ids.trace, self._ids.span = told.trace.id, call.span
        span = self._tracer.start_span(
            f"{common[names.OPERATION]} {place.model if place else call.target}",
            context=within,
            kind=SpanKind.CLIENT,
            attributes={**attributes, **(of_answer(walked, call) if answered else {})},
            start_time=call.started,
        )
        if call.error and call.error != CALLER_LEFT:
            span.set_status(Status(StatusCode.ERROR, call.error))
        span.end(ended)
        self._timed(walked, call, (ended - call.started) / NANO, {**common, **failed}, answered)

    def _timed(self, walked: Walked, call: Call, seconds: float, dimensions: Attributes, answered: bool) -> None:
        short = some({name: dimensions.get(name) for name in (names.TARGET, names.ERROR)})
        self._observe(names.CALL_SECONDS, seconds, dimensions)
        self._observe(names.LATENCY, seconds, short)
        if call.error and call.error != CALLER_LEFT:
            self._count(names.ERRORS, 1, short)
        if answered:
            usage = walked.decision.usage
            for kind, tokens in (("input", usage.input), ("output", usage.output)) if usage else ():
                self._observe(names.TOKEN_USAGE, tokens, {**dimensions, names.TOKEN_TYPE: kind})
            self._paced(names.CALL_FIRST, names.CALL_PER_TOKEN, first(walked, call), seconds, walked, short)

    def _served(self, told: Told, walked: Walked, error: str | None) -> None:
        """The family of metrics that a server tells about its callers' requests."""
        decision, seconds = walked.decision, (told.ended - told.started) / NANO
        dimensions = {
            names.OPERATION: operation(told),
            names.ROUTER_ROUTE: decision.plan.route,
            names.TASK: decision.plan.task.kind,
        }
        self._observe(names.SERVED_SECONDS, seconds, {**dimensions, **some({names.ERROR: error})})
        self._paced(
            names.SERVED_FIRST, names.SERVED_PER_TOKEN, decision.first_token_seconds, seconds, walked, dimensions
        )
        if walked.overhead_seconds is not None:
            self._observe(names.OWN_TIME, walked.overhead_seconds, {names.ROUTER_ROUTE: decision.plan.route})

    def _paced(
        self, one: Metric, other: Metric, spoke: float | None, seconds: float, walked: Walked, dimensions: Attributes
    ) -> None:
        """A stream's first words, and its pace after them."""
        if spoke is None:
            return
        self._observe(one, spoke, dimensions)
        if walked.tokens > 1:
            self._observe(other, max(0.0, seconds - spoke) / (walked.tokens - 1), dimensions)

    def _paid(self, walked: Walked) -> None:
        """What was used and what that cost; an answer from the cache used nothing, and saved all of it."""
        decision, usage, cost = walked.decision, walked.decision.usage, walked.decision.cost
        dimensions = {
            names.TARGET: decision.target,
            names.TASK: decision.plan.task.kind,
            names.CALLER: decision.caller,
            names.ROUTER_ROUTE: decision.plan.route,
        }
        if cost and cost.saved_micro_usd is not None:
            self._count(names.SAVED_USD, cost.saved_micro_usd / 1e6, dimensions)
        if usage is None or decision.from_cache:
            return
        for kind, tokens in (("input", usage.input), ("output", usage.output)):
            self._count(names.COST_TOKENS, tokens, {**dimensions, names.TOKEN_TYPE: kind})
        if cost and cost.micro_usd is not None:
            self._count(names.COST_USD, cost.micro_usd / 1e6, dimensions)
        if walked.asked.stream:
            self._count(names.STREAMED, walked.tokens, {names.TARGET: decision.target})

    def _health(self, event: Event) -> None:
        if event.target is not None and (event.kind in BREAKER_STATES or event.kind == "reset"):
            self._states[event.target] = BREAKER_STATES.get(event.kind, BREAKER_STATES["closed"])
        if event.here:  # the instance at which it happened tells it
            facts = some({names.TARGET: event.target, names.DETAIL: event.detail or None})
            self._event(HEALTH_EVENTS[event.kind], facts, int(event.at * NANO))

    def _breakers(self, options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(state, {names.TARGET: target}) for target, state in self._states.items()]

    def _event(self, name: str, attributes: Attributes, at: int, within: Context | None = None) -> None:
        self._log.emit(
            LogRecord(
                timestamp=at,
                context=within or Context(),
                severity_number=SeverityNumber.INFO,
                body=name,
                attributes=attributes,
                event_name=name,
            )
        )

    def _line(self, line: Line) -> None:
        self._log.emit(
            LogRecord(
                timestamp=line.at,
                context=_parent(line.trace, line.trace.span) if line.trace else Context(),
                severity_number=_LEVELS.get(line.level, SeverityNumber.INFO),
                severity_text=line.level,
                body=line.message,
                attributes=some({names.LOGGER: line.logger, names.REQUEST_ID: line.request_id}),
            )
        )

    def _observe(self, metric: Metric, value: float, dimensions: Attributes) -> None:
        self._meters[metric.name](value, self._bounded(dimensions))

    def _count(self, metric: Metric, value: float, dimensions: Attributes) -> None:
        if value > 0:
            self._meters[metric.name](value, self._bounded(dimensions))


def _instrument(meter: Any, metric: Metric) -> Instrument:
    if metric.kind == "counter":
        add: Instrument = meter.create_counter(metric.name, metric.unit, metric.says).add
        return add
    made = meter.create_histogram(
        metric.name, metric.unit, metric.says, explicit_bucket_boundaries_advisory=list(metric.buckets)
    )
    record: Instrument = made.record
    return record


def _parent(trace: Trace, span: str | None) -> Context:
    """What a span is recorded under; without a parent it is the first of its trace."""
    if span is None:
        return Context()
    context = SpanContext(int(trace.id, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return otel.set_span_in_context(NonRecordingSpan(context), Context())
