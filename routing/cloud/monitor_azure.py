"""Application Insights by its maker's OpenTelemetry exporters (`ROUTER_TELEMETRY = azuremonitor`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from routing import telemetry_names as names
from routing.cloud import insights

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

EVENT = "microsoft.custom_event.name"  # makes a log record a row of customEvents


class AzureMonitor:
    """Batches by the three exporters."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        from azure.monitor.opentelemetry.exporter import (
            AzureMonitorLogExporter,
            AzureMonitorMetricExporter,
            AzureMonitorTraceExporter,
        )
        from opentelemetry.sdk.trace import TracerProvider

        private = TracerProvider(shutdown_on_exit=False)  # it would look for a global one otherwise

        class Traces(AzureMonitorTraceExporter):
            """With the error's class among the properties, where queries look for it; the package leaves it out."""

            def _span_to_envelope(self, span: ReadableSpan) -> Any:
                envelope = super()._span_to_envelope(span)
                error = (span.attributes or {}).get(names.ERROR)
                if error is not None and envelope.data is not None:
                    data: Any = envelope.data.base_data
                    data.properties[names.ERROR] = str(error)
                return envelope

        self._traces = Traces(tracer_provider=private, **options)
        self._logs = AzureMonitorLogExporter(**options)
        self._metrics = AzureMonitorMetricExporter(**options)
        self.temporality: Mapping[type, Any] = self._metrics._preferred_temporality or {}

    def spans(self, batch: Sequence[ReadableSpan]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        return self._traces.export(batch) is SpanExportResult.SUCCESS

    def logs(self, batch: Sequence[ReadableLogRecord]) -> bool:
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        for each in batch:
            if each.log_record.event_name:
                each.log_record.attributes = {**(each.log_record.attributes or {}), EVENT: each.log_record.event_name}
        return self._logs.export(batch) is LogRecordExportResult.SUCCESS

    def parts(self, data: MetricsData) -> list[MetricsData]:
        return [data]

    def metrics(self, data: MetricsData) -> bool:
        from opentelemetry.sdk.metrics.export import MetricExportResult

        return self._metrics.export(data) is MetricExportResult.SUCCESS

    def close(self) -> None:
        for exporter in (self._traces, self._logs, self._metrics):
            exporter.shutdown()


def connect(environment: Mapping[str, str], resource: Resource) -> AzureMonitor:
    """Raises ValueError when the connection string is not one."""
    insights.silence()
    for name in ("azure.core.pipeline.policies.http_logging_policy", "azure.monitor.opentelemetry.exporter"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the monitor says when telemetry does not arrive
    credential = insights.credential(environment)
    options: dict[str, Any] = {
        "connection_string": insights.connection_string(environment),
        "disable_offline_storage": True,
        "timeout": insights.SECONDS,
        "read_timeout": insights.SECONDS,
        "retry_total": 0,
    }
    return AzureMonitor({**options, "credential": credential} if credential else options)
