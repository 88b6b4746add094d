"""Sends telemetry, in a thread of its own: no request waits for it, whatever its backend does.

The thread takes what was told, has it recorded by OpenTelemetry's SDK, and hands batches to one backend. A batch that
fails is kept and tried again a few times; what finds no room is dropped and counted. The SDK and the backend's package
load in the thread, at its first turn.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from routing.cloud import insights
from routing.telemetry_names import SCOPE
from routing.trace import GivenIds

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import TracerProvider

Kind = Literal["opencensus", "azuremonitor", "otlp", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHOICE, CONNECTION = "ROUTER_TELEMETRY", "APPLICATIONINSIGHTS_CONNECTION_STRING"
MODULES: Mapping[Kind, str] = {
    "opencensus": "routing.cloud.monitor_opencensus",
    "azuremonitor": "routing.cloud.monitor_azure",
    "otlp": "routing.cloud.monitor_otlp",
}
BATCH = 50  # spans or events at once: encoding more would hold the interpreter for milliseconds
BREATH = 0.0002  # seconds after each thing that is recorded, in which requests get their turn
UNSENT = 40  # batches that wait for a backend that is away
TRIES = 4
HURRY = 0.2  # seconds between two turns of a process that is about to end
FIRST = 1.0  # seconds before anything is loaded
LOADING = 3.0  # seconds that it may take at the end
LAST = 5.0  # seconds that the end waits for the last turn
_log = logging.getLogger(__name__)


class Backend(Protocol):
    """Where telemetry goes. Every method waits for the answer, and says whether all of it was taken."""

    temporality: Mapping[type, Any]  # of each kind of instrument, as the backend wants it

    def spans(self, batch: Sequence[ReadableSpan]) -> bool: ...

    def logs(self, batch: Sequence[ReadableLogRecord]) -> bool: ...

    def parts(self, data: MetricsData) -> Sequence[Any]:
        """What `metrics` is to send, in pieces: one that arrived is not sent again when another did not."""

    def metrics(self, part: Any) -> bool: ...

    def close(self) -> None: ...


class Recorder(Protocol):
    """Turns what was told into spans, metrics and events."""

    def record(self, thing: Any) -> None: ...

    def before_sending(self) -> None: ...


class Source(Protocol):
    """What was told. `lost` counts what was dropped; nothing is told any more once `active` is False."""

    active: bool
    lost: int

    def take(self) -> Any | None: ...


Connect = Callable[["TracerProvider", "MeterProvider", "LoggerProvider", GivenIds], Recorder]


def chosen(environment: Mapping[str, str]) -> Kind:
    """What the environment asks for. Raises ValueError for what there is not."""
    asked = environment.get(CHOICE, "").strip().lower() or ("opencensus" if environment.get(CONNECTION) else "none")
    for kind in KINDS:
        if asked == kind:
            return kind
    raise ValueError(f"{CHOICE}: there is no {asked!r}; write one of {', '.join(KINDS)}")


@dataclass(slots=True)
class _Batch:
    """Something to send, in the way in which it is sent."""

    send: Callable[[Any], bool]
    items: Any
    size: int
    tries: int = 0


@dataclass(slots=True)
class _Outbox:
    """Batches on their way. Once one fails the others wait for the next turn: the backend is away."""

    lost: Callable[[int], None]
    waiting: deque[_Batch] = field(default_factory=deque)
    away: bool = False

    def put(self, batch: _Batch) -> None:
        self.waiting.append(batch)
        self.send()
        while len(self.waiting) > UNSENT:
            self.lost(self.waiting.popleft().size)

    def send(self) -> None:
        while self.waiting and not self.away:
            batch = self.waiting.popleft()
            if not _sent(batch):
                self.away, batch.tries = True, batch.tries + 1
                if batch.tries < TRIES:
                    self.waiting.appendleft(batch)
                else:
                    self.lost(batch.size)

    def give_up(self) -> None:
        self.lost(sum(batch.size for batch in self.waiting))
        self.waiting.clear()


def _sent(batch: _Batch) -> bool:
    try:
        return batch.send(batch.items)
    except Exception:  # whatever a package raises, the thread goes on
        return False


class Monitor:
    """Drives `source` to the backend that `kind` names. Times in seconds."""

    def __init__(
        self,
        kind: Kind,
        environment: Mapping[str, str],
        source: Source,
        connect: Connect,
        *,
        interval: float,
        metrics_interval: float,
    ) -> None:
        self._kind, self._environment, self._source, self._connect = kind, environment, source, connect
        self._interval, self._metrics_interval = interval, metrics_interval
        self._wake, self._loaded, self._ending = threading.Event(), threading.Event(), False
        self._thread: threading.Thread | None = None
        self._warned, self._refused = False, ""

    @property
    def sends(self) -> bool:
        """Whether it is to send anything."""
        return self._kind != "none"

    def trouble(self) -> str | None:
        """Why nothing arrives, where nothing does, and what may mend it."""
        if self._refused:
            return f"{self._kind} cannot be used: {self._refused}"
        if not self._warned:
            return None
        return f"nothing arrives by {self._kind}; {insights.MEND if self._kind != 'otlp' else 'see to the collector'}"

    def start(self) -> None:
        """Once; nothing happens where nothing is to be sent."""
        if self._kind != "none" and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
            self._thread.start()
            atexit.register(self._end)

    def hurry(self) -> None:
        """The process is about to end: what is told is sent as it comes.

        Waits until the packages are loaded, if they are not: they start threads for that, which an interpreter that
        has begun to end does not do any more. Only a process that ends in its first second has to wait.
        """
        self._interval = self._metrics_interval = min(self._interval, HURRY)
        self._wake.set()
        if self._thread is not None:
            self._loaded.wait(LOADING)

    async def close(self) -> None:
        """Sends what is left, and stops."""
        if self._thread is not None:
            atexit.unregister(self._end)
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(LAST)

    def _run(self) -> None:
        self._wake.wait(min(self._interval, FIRST))  # nobody's first request should wait for what is loaded here
        try:
            pipe = self._load()
        except Exception as error:
            self._source.active = False
            self._refused = str(error)
            _log.warning("Telemetry is off, because %s cannot be used: %s", self._kind, error)
            return
        finally:
            self._loaded.set()
        while not self._ending:
            self._turn(pipe, last=False)
            self._pause()
        self._turn(pipe, last=True)
        pipe.outbox.give_up()
        pipe.backend.close()

    def _pause(self) -> None:
        if not self._ending:
            self._wake.wait(self._interval)
            self._wake.clear()

    def _turn(self, pipe: _Pipe, *, last: bool) -> None:
        pipe.outbox.away = False
        pipe.outbox.send()
        while (thing := self._source.take()) is not None:
            try:
                pipe.recorder.record(thing)
            except Exception as error:
                self._source.lost += 1
                _log.warning("Telemetry cannot be recorded: %s", type(error).__name__)
            pipe.send(at_least=BATCH)
            time.sleep(BREATH)
        pipe.send(at_least=1)
        if last or time.monotonic() - pipe.measured_at >= self._metrics_interval:
            pipe.measure()
        self._report(pipe)

    def _report(self, pipe: _Pipe) -> None:
        """One line when the backend goes away, and one when it is back."""
        if pipe.outbox.away != self._warned:
            self._warned = pipe.outbox.away
            if self._warned:
                _log.warning("Telemetry does not arrive: %s takes nothing; it is kept for a while", self._kind)
            else:
                _log.warning("Telemetry arrives again; %d things were dropped so far", self._source.lost)

    def _load(self) -> _Pipe:
        from opentelemetry.sdk.resources import Resource

        role = self._environment.get("OTEL_SERVICE_NAME") or self._environment.get("WEBSITE_SITE_NAME") or SCOPE
        instance = self._environment.get("WEBSITE_INSTANCE_ID") or os.uname().nodename
        resource = Resource.create({"service.name": role, "service.instance.id": instance[:64]})
        backend: Backend = importlib.import_module(MODULES[self._kind]).connect(self._environment, resource)
        return _Pipe(backend, resource, self._connect, self._lose)

    def _lose(self, size: int) -> None:
        self._source.lost += size


class _Pipe:
    """OpenTelemetry's SDK between the recorder and the backend. Its providers are ours alone."""

    def __init__(self, backend: Backend, resource: Resource, connect: Connect, lose: Callable[[int], None]) -> None:
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        self.backend, self.outbox, self.measured_at = backend, _Outbox(lose), time.monotonic()
        self._spans: list[ReadableSpan] = []
        self._logs: list[ReadableLogRecord] = []
        self._reader = InMemoryMetricReader(preferred_temporality=dict(backend.temporality))
        ids: Any = GivenIds()
        tracers = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=ids)
        tracers.add_span_processor(_spans_into(self._spans))
        meters = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        loggers = LoggerProvider(resource, shutdown_on_exit=False)
        loggers.add_log_record_processor(_logs_into(self._logs))
        self.recorder = connect(tracers, meters, loggers, ids)

    def send(self, at_least: int) -> None:
        """What was recorded, if it is that much."""
        self._send(self.backend.spans, self._spans, at_least)
        self._send(self.backend.logs, self._logs, at_least)

    def _send(self, send: Callable[[Any], bool], recorded: list[Any], at_least: int) -> None:
        while len(recorded) >= at_least:
            batch, recorded[:] = recorded[:BATCH], recorded[BATCH:]
            self.outbox.put(_Batch(send, batch, len(batch)))

    def measure(self) -> None:
        """The metrics since the last time, or as they are now, as the backend wants it."""
        self.measured_at = time.monotonic()
        self.recorder.before_sending()
        data = self._reader.get_metrics_data()
        for part in self.backend.parts(data) if data is not None else ():
            self.outbox.put(_Batch(self.backend.metrics, part, 1))


def _spans_into(ended: list[ReadableSpan]) -> Any:
    from opentelemetry.sdk.trace import SpanProcessor

    class Collect(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span)

    return Collect()


def _logs_into(emitted: list[ReadableLogRecord]) -> Any:
    from opentelemetry.sdk._logs import LogRecordProcessor, ReadableLogRecord

    class Collect(LogRecordProcessor):
        def on_emit(self, log_record: Any) -> None:
            each = log_record
            emitted.append(ReadableLogRecord(each.log_record, each.resource, each.instrumentation_scope, each.limits))

        def shutdown(self) -> None:
            """Nothing to close."""

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return True

    return Collect()
