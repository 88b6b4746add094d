"""Any OpenTelemetry collector by OTLP over HTTP (`ROUTER_TELEMETRY = otlp`); `OTEL_EXPORTER_OTLP_*` say where."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

SECONDS = 5.0  # for one batch to arrive, repetitions included


class Otlp:
    """Batches by the three exporters."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        self._traces = OTLPSpanExporter(timeout=SECONDS)
        self._logs = OTLPLogExporter(timeout=SECONDS)
        self._metrics = OTLPMetricExporter(timeout=SECONDS)
        self.temporality: Mapping[type, Any] = self._metrics._preferred_temporality or {}

    def spans(self, batch: Sequence[ReadableSpan]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        return self._traces.export(batch) is SpanExportResult.SUCCESS

    def logs(self, batch: Sequence[ReadableLogRecord]) -> bool:
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        return self._logs.export(batch) is LogRecordExportResult.SUCCESS

    def parts(self, data: MetricsData) -> list[MetricsData]:
        return [data]

    def metrics(self, data: MetricsData) -> bool:
        from opentelemetry.sdk.metrics.export import MetricExportResult

        return self._metrics.export(data) is MetricExportResult.SUCCESS

    def close(self) -> None:
        for exporter in (self._traces, self._logs, self._metrics):
            exporter.shutdown()


def connect(environment: Mapping[str, str], resource: Resource) -> Otlp:
    """The address is read from the process's environment by the exporters themselves."""
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)  # the monitor says when nothing arrives
    return Otlp()
