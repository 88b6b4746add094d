"""Application Insights by opencensus-ext-azure (`ROUTER_TELEMETRY = opencensus`): OpenTelemetry's data, its envelopes.

Its maker has not supported the package since 30 September 2024.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from routing import telemetry_names as names
from routing.cloud import insights

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

# What opencensus calls the attributes that it makes a request's fields of.
OLD_NAMES = {names.METHOD: "http.method", names.ROUTE: "http.route", names.STATUS: "http.status_code"}
INSTRUMENT = "Microsoft.ApplicationInsights."
AT_ONCE = 100  # points in one message
LEVELS = {"DEBUG": 0, "INFO": 1, "WARNING": 2, "ERROR": 3, "CRITICAL": 4}


class OpenCensus:
    """Batches as envelopes of the package's exporter."""

    def __init__(self, resource: Resource, **options: Any) -> None:
        from opencensus.ext.azure.common import Options, utils
        from opencensus.ext.azure.trace_exporter import AzureExporter
        from opentelemetry.sdk.metrics import Counter, Histogram
        from opentelemetry.sdk.metrics.export import AggregationTemporality

        class Exporter(AzureExporter):  # type: ignore[misc]  # it has no types
            """Without its worker: a process that is ending starts no thread any more, and ours is enough."""

            def __init__(self) -> None:
                self.options = Options(enable_local_storage=False, timeout=insights.SECONDS, **options)
                utils.validate_instrumentation_key(self.options.instrumentation_key)
                self.storage, self._consecutive_redirects = None, 0

        self._exporter = Exporter()
        told = resource.attributes
        self._tags = {
            "ai.cloud.role": str(told["service.name"]),
            "ai.cloud.roleInstance": str(told["service.instance.id"]),
        }
        # Every export adds up at the other end, so each is to hold only what is new.
        self.temporality: Mapping[type, Any] = dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)

    def spans(self, batch: Sequence[ReadableSpan]) -> bool:
        return self._send(each for span in batch for each in self._of_span(span))

    def logs(self, batch: Sequence[ReadableLogRecord]) -> bool:
        return self._send(self._of_record(each.log_record) for each in batch)

    def parts(self, data: MetricsData) -> list[list[tuple[str, Any]]]:
        sets = (scope for resource in data.resource_metrics for scope in resource.scope_metrics)
        found = [(metric.name, point) for each in sets for metric in each.metrics for point in metric.data.data_points]
        return [found[at : at + AT_ONCE] for at in range(0, len(found), AT_ONCE)]

    def metrics(self, part: list[tuple[str, Any]]) -> bool:
        return self._send(self._of_point(name, point) for name, point in part)

    def close(self) -> None:
        """Nothing is kept open."""

    def _send(self, envelopes: Iterator[Any]) -> bool:
        from opencensus.ext.azure.common.transport import TransportStatusCode

        listed = list(envelopes)
        return not listed or self._exporter._transmit(listed) is TransportStatusCode.SUCCESS

    def _of_span(self, span: ReadableSpan) -> Iterator[Any]:
        for envelope in self._exporter.span_data_to_envelope(_span_data(span)):
            attributes, data = span.attributes or {}, envelope.data.baseData
            envelope.tags.update(self._tags)
            if envelope.data.baseType == "RemoteDependencyData":
                data.type = f"GenAI | {attributes.get(names.PROVIDER, 'unknown')}"
                data.target = str(attributes.get(names.ADDRESS) or attributes.get(names.TARGET, ""))
                data.resultCode = str(attributes.get(names.ERROR, "0"))
            data.properties = _texts(data.properties)
            yield envelope

    def _of_record(self, record: Any) -> Any:
        """A row of customEvents, or of traces where it is a line of the log."""
        from opencensus.ext.azure.common.protocol import Event, Message

        properties = _texts(record.attributes or {})
        if record.event_name:
            body: Any = Event(name=record.event_name, properties=properties, measurements={})
            return self._envelope("Event", "EventData", body, record.timestamp, record)
        level = LEVELS.get(record.severity_text, 1)
        body = Message(message=str(record.body), severityLevel=level, properties=properties)
        return self._envelope("Message", "MessageData", body, record.timestamp, record)

    def _of_point(self, name: str, point: Any) -> Any:
        from opencensus.ext.azure.common.protocol import DataPoint, MetricData

        if hasattr(point, "bucket_counts"):
            sums = {"value": point.sum, "count": point.count, "min": point.min, "max": point.max}
            measured = DataPoint(name=name, ns=name, **sums)
        else:
            measured = DataPoint(name=name, ns=name, value=point.value)
        body = MetricData(metrics=[measured], properties=_texts(point.attributes or {}))
        return self._envelope("Metric", "MetricData", body, point.time_unix_nano)

    def _envelope(self, name: str, kind: str, body: Any, at: int | None, record: Any = None) -> Any:
        from opencensus.ext.azure.common import utils
        from opencensus.ext.azure.common.protocol import Data, Envelope

        tags = {**utils.azure_monitor_context, **self._tags}
        if record is not None and record.trace_id:
            tags["ai.operation.id"] = f"{record.trace_id:032x}"
            tags["ai.operation.parentId"] = f"{record.span_id:016x}"
        key = self._exporter.options.instrumentation_key
        data = Data(baseData=body, baseType=kind)
        return Envelope(iKey=key, tags=tags, time=_moment(at or 0), name=INSTRUMENT + name, data=data)


def _span_data(span: ReadableSpan) -> Any:
    from opencensus.trace import span as kinds
    from opencensus.trace.span_context import SpanContext
    from opencensus.trace.span_data import SpanData
    from opencensus.trace.status import Status
    from opentelemetry.trace import SpanKind, StatusCode

    context = span.get_span_context()
    assert context is not None
    kind = kinds.SpanKind.SERVER if span.kind is SpanKind.SERVER else kinds.SpanKind.CLIENT
    return SpanData(
        name=span.name,
        context=SpanContext(trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}"),
        span_id=f"{context.span_id:016x}",
        parent_span_id=f"{span.parent.span_id:016x}" if span.parent else None,
        attributes={OLD_NAMES.get(name, name): value for name, value in (span.attributes or {}).items()},
        start_time=_moment(span.start_time or 0),
        end_time=_moment(span.end_time or 0),
        child_span_count=0,
        stack_trace=None,
        annotations=None,
        message_events=None,
        links=[],
        status=Status(2 if span.status.status_code is StatusCode.ERROR else 0),
        same_process_as_parent_span=None,
        span_kind=kind,
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """The service takes properties as text only."""
    return {name: str(value) for name, value in values.items()}


def _moment(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def connect(environment: Mapping[str, str], resource: Resource) -> OpenCensus:
    """Raises ValueError when the connection string is not one."""
    insights.silence()
    logging.getLogger("opencensus.ext.azure").setLevel(logging.CRITICAL)  # the monitor says when nothing arrives
    credential = insights.credential(environment)
    return OpenCensus(resource, connection_string=insights.connection_string(environment), credential=credential)
