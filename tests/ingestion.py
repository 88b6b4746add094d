"""Where telemetry arrives in tests: Application Insights' ingestion endpoint and an OTLP collector, on loopback.

Both decode what really comes over the wire, and can hang, refuse or throttle.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "00000000-0000-0000-0000-0000000c0de5"


@dataclass(slots=True)
class Arrived:
    """One POST, decoded."""

    path: str
    headers: Mapping[str, str]
    items: list[Any]


@dataclass
class Ingestion:
    """What arrived so far, and how the endpoint behaves: a status, and `gate` cleared to hang."""

    arrived: list[Arrived] = field(default_factory=list)
    status: int = 200
    asked: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    news: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""

    @property
    def connection_string(self) -> str:
        """As the portal writes it, with the slash at the end."""
        return f"InstrumentationKey={KEY};IngestionEndpoint={self.url}/;LiveEndpoint={self.url}/;ApplicationId=one"

    def until(self, true: Callable[[], bool], seconds: float = 60.0) -> None:
        """Waits for what has to arrive. Raises AssertionError."""
        with self.news:
            assert self.news.wait_for(true, seconds), [item for each in self.arrived for item in each.items][-5:]

    def items(self, kind: str) -> list[Any]:
        """Envelopes' data by its type, like `RequestData`."""
        envelopes = [item for each in self.arrived for item in each.items]
        return [each for each in envelopes if each["data"]["baseType"] == kind]

    def named(self, kind: str, name: str) -> list[Any]:
        """The data of that type whose own name it is."""
        return [each["data"]["baseData"] for each in self.items(kind) if each["data"]["baseData"].get("name") == name]

    def total(self, metric: str, dimensions: Mapping[str, str] | None = None) -> float:
        """The sum of a metric's points, of those dimensions."""
        wanted = dict(dimensions or {})
        return sum(
            point["value"]
            for each in self.items("MetricData")
            for point in each["data"]["baseData"]["metrics"]
            if point["name"] == metric and wanted.items() <= each["data"]["baseData"]["properties"].items()
        )

    def spans(self) -> list[Any]:
        return [s for r in self._otlp("/v1/traces") for scope in r.scope_spans for s in scope.spans]

    def records(self) -> list[Any]:
        return [s for r in self._otlp("/v1/logs") for scope in r.scope_logs for s in scope.log_records]

    def metrics(self) -> dict[str, list[Any]]:
        """Each metric's points in the order in which they came."""
        found: dict[str, list[Any]] = {}
        for resource in self._otlp("/v1/metrics"):
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                found.setdefault(metric.name, []).extend(getattr(metric, metric.WhichOneof("data")).data_points)
        return found

    def _otlp(self, path: str) -> list[Any]:
        return [item for each in self.arrived if each.path == path for item in each.items]

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """One POST. Returns the status of the answer."""
        with self.news:
            self.asked += 1
            self.news.notify_all()
        self.gate.wait(60)
        with self.news:
            if self.status == 200:
                if headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self.arrived.append(Arrived(path, headers, _decoded(path, body)))
            self.news.notify_all()
            return self.status


def attributes(thing: Any) -> dict[str, Any]:
    """The attributes of an OTLP span, record or point."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in thing.attributes}


def _decoded(path: str, body: bytes) -> list[Any]:
    if path.endswith("/track"):
        listed = json.loads(body)
        return listed if isinstance(listed, list) else [listed]
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    if path == "/v1/traces":
        return list(ExportTraceServiceRequest.FromString(body).resource_spans)
    if path == "/v1/logs":
        return list(ExportLogsServiceRequest.FromString(body).resource_logs)
    return list(ExportMetricsServiceRequest.FromString(body).resource_metrics)


@contextmanager
def serving() -> Iterator[Ingestion]:
    """The endpoint on a free port; what hangs is let go at the end."""
    ingestion = Ingestion()
    ingestion.gate.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status = ingestion.take(self.path, dict(self.headers), body)
            answer = b""
            if self.path.endswith("/track"):
                count = body.count(b'"iKey"') if status == 200 else 0
                answer = json.dumps({"itemsReceived": count, "itemsAccepted": count, "errors": []}).encode()
            try:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
            except OSError:
                self.close_connection = True  # who hung up long ago

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    ingestion.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield ingestion
    finally:
        ingestion.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
