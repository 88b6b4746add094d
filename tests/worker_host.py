"""The real Python worker library, driven in this process as the Functions host drives it, and served as ASGI.

The host sends the worker each request twice: an invocation over gRPC, whose messages are plain objects here, and the
HTTP request itself to the web server that the worker opens. Here that web server's application is called directly, or
served in a process of its own by the very server that the worker opens: `python -m tests.worker_host`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from azurefunctions.extensions.http import fastapi
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from local.host import route_prefix
from local.route_table import RouteTable

_INVOCATION_HEADER = b"x-ms-invocation-id"


class _Message(SimpleNamespace):
    """A protobuf message as far as the worker can tell: attributes from keyword arguments."""


class _StatusResult(_Message):
    Failure, Success, Cancelled = 0, 1, 2


class _BindingInfo(_Message):
    out, inout, undefined, string, binary, stream = 1, 2, 0, 1, 2, 3


_PLAIN_MESSAGES = (
    "FunctionLoadResponse",
    "FunctionMetadataResponse",
    "InvocationResponse",
    "ParameterBinding",
    "RpcException",
    "RpcFunctionMetadata",
    "RpcRetryOptions",
    "TypedData",
    "WorkerInitResponse",
    "WorkerMetadata",
)
_PROTOS = SimpleNamespace(
    StatusResult=_StatusResult,
    BindingInfo=_BindingInfo,
    **{name: type(name, (_Message,), {}) for name in _PLAIN_MESSAGES},
)


class _OneOf(_Message):
    """A message with a `oneof data` field; `kind` names the member that is set, if any."""

    kind: str | None

    def WhichOneof(self, _: str) -> str | None:  # noqa: N802 - protobuf's name
        return self.kind


class WorkerHost:
    """An ASGI application in front of the worker library. Call `start` in the loop that will serve it."""

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory).resolve()
        self._table: RouteTable[tuple[str, str]] = RouteTable(route_prefix(self._directory))
        self._invocations: set[asyncio.Task[Any]] = set()
        self._inner: ASGIApp

    async def start(self) -> None:
        """Let the worker import and index the function app; RuntimeError with its stack trace when it refuses."""

        async def capture(server: Any) -> None:
            self._inner = server.web_app

        with mock.patch.object(fastapi.WebServer, "serve", capture):
            await self._load()

    async def serve(self, on_ready: Callable[[str], None]) -> None:
        """The same, and let the worker open its own web server, in the main thread as in the cloud, until it ends."""
        worker_serves, ended = fastapi.WebServer.serve, asyncio.get_running_loop().create_future()

        async def serve(server: Any) -> None:
            self._inner, server.web_app = server.web_app, self
            ready = asyncio.create_task(_listening(server.port, lambda: on_ready(f"http://127.0.0.1:{server.port}")))
            await worker_serves(server)
            await ready
            ended.set_result(None)

        with mock.patch.object(fastapi.WebServer, "serve", serve):
            await self._load()
        await ended

    async def _load(self) -> None:
        import azure_functions_runtime as worker

        self._worker = worker
        sys.path.insert(0, str(self._directory))
        sys.modules.pop("function_app", None)  # a FunctionApp gives out its functions only once
        request = SimpleNamespace(capabilities={}, function_app_directory=str(self._directory))
        answer = await worker.worker_init_request(
            SimpleNamespace(
                request=SimpleNamespace(worker_init_request=request),
                properties={"protos": _PROTOS, "host": "127.0.0.1"},
            )
        )
        if answer.result.status != _StatusResult.Success:
            raise RuntimeError(answer.result.exception.stack_trace)
        metadata = await worker.functions_metadata_request(SimpleNamespace())
        for function in metadata.function_metadata_results:
            self._add(function)
        await asyncio.sleep(0)  # in which the task begins that serves

    def _add(self, function: Any) -> None:
        bindings = [json.loads(binding) for binding in function.raw_bindings]
        for trigger in bindings:
            if trigger["type"] == "httpTrigger":
                route = trigger.get("route") or function.name
                self._table.add(route, trigger.get("methods", ()), (function.function_id, trigger["name"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._inner(scope, receive, send)
        found = self._table.find(scope["method"], scope["path"])
        if found is None:
            return await Response(status_code=404)(scope, receive, send)
        (function_id, argument), parameters = found
        invocation_id = str(uuid.uuid4())
        invocation = asyncio.create_task(self._invoke(function_id, argument, invocation_id, parameters))
        self._invocations.add(invocation)
        invocation.add_done_callback(self._invocations.discard)
        headers = [header for header in scope["headers"] if header[0] != _INVOCATION_HEADER]
        headers.append((_INVOCATION_HEADER, invocation_id.encode()))
        await self._inner({**scope, "headers": headers}, receive, send)

    async def _invoke(self, function_id: str, argument: str, invocation_id: str, parameters: dict[str, str]) -> Any:
        http = SimpleNamespace(method="", url="", headers={}, params=parameters, query={}, body=_OneOf(kind=None))
        data = _OneOf(kind="http", http=http)
        request = SimpleNamespace(
            invocation_id=invocation_id,
            function_id=function_id,
            input_data=[SimpleNamespace(name=argument, data=data, WhichOneof=lambda _: "data")],
            trigger_metadata={},
            trace_context=SimpleNamespace(trace_parent="", trace_state="", attributes={}),
            retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
        )
        return await self._worker.invocation_request(
            SimpleNamespace(request=SimpleNamespace(invocation_request=request))
        )


async def _listening(port: int, then: Callable[[], None]) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return then()


if __name__ == "__main__":
    asyncio.run(WorkerHost(".").serve(lambda url: print(url, flush=True)))
