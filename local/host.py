"""Serves a function app's HTTP functions on this machine the way the Azure Functions host does.

The functions come from the FunctionApp object alone, so there is no second list of endpoints. As with Core Tools,
authorisation levels are not enforced here. Timers are listed at GET /admin/functions and run by
POST /admin/functions/{name}. On SIGTERM running answers finish, new connections are refused, then the process ends.

    python -m local.host [--app DIRECTORY] [--port PORT] [--reuse-port]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import json
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote

import uvicorn
from azure.functions import FunctionRegister
from azure.functions.timer import TimerRequest
from azurefunctions.extensions.http.fastapi import JSONResponse, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from local.processes import a_port, listen
from local.route_table import RouteError, RouteTable

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[..., Any]
_RESERVED_PATHS = "/admin/"


class AppError(Exception):
    """A folder that does not hold what the Functions host would serve."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a function that asks for `context` is told about its invocation."""

    function_name: str
    function_directory: str
    invocation_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Function:
    """One registered function: its name, its trigger binding as JSON data, and the code."""

    name: str
    trigger: Mapping[str, Any]
    handler: Handler

    @property
    def type(self) -> str:
        return str(self.trigger["type"])

    @property
    def route(self) -> str:
        return str(self.trigger.get("route") or self.name)


class Host:
    """An ASGI application that answers with the functions of one function app.

    Raises RouteError when two functions share a route or one starts with admin or runtime.
    """

    def __init__(self, functions: Sequence[Function], prefix: str = "", directory: str = "") -> None:
        self._directory = directory
        self._others = {function.name: function for function in functions if function.type != "httpTrigger"}
        self._table: RouteTable[Endpoint] = RouteTable(prefix)
        for function in functions:
            if function.type == "httpTrigger":
                self._add(function)

    def _add(self, function: Function) -> None:
        try:
            self._table.add(function.route, function.trigger.get("methods", ()), self._endpoint(function))
        except RouteError as error:
            raise RouteError(f"function {function.name}: {error}") from None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _routed_path(scope)
        if path.startswith(_RESERVED_PATHS):
            await (await self._administer(scope["method"], path))(scope, receive, send)
        elif (found := self._table.find(scope["method"], path)) is not None:
            endpoint, scope["path_params"] = found
            await endpoint(scope, receive, send)
        else:
            await Response(status_code=404)(scope, receive, send)

    def _endpoint(self, function: Function) -> Endpoint:
        handler, argument = function.handler, str(function.trigger["name"])
        wants_context = "context" in inspect.signature(handler).parameters
        is_async = inspect.iscoroutinefunction(handler)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            arguments: dict[str, Any] = {argument: Request(scope, receive, send)}
            if wants_context:
                arguments["context"] = Context(function.name, self._directory)
            try:
                response = await (handler(**arguments) if is_async else run_in_threadpool(handler, **arguments))
            except ClientDisconnect:
                return
            if not isinstance(response, Response):
                raise TypeError(f"function {function.name} returned {type(response).__name__}, not a Response")
            await response(scope, receive, send)

        return answer

    async def _administer(self, method: str, path: str) -> Response:
        """The part of the host's own API that helps on a laptop: its state, the timers, and running one of them."""
        if (method, path) == ("GET", "/admin/host/status"):
            return JSONResponse({"state": "Running"})
        if (method, path) == ("GET", "/admin/functions"):
            return JSONResponse([{"name": name, "trigger": f.trigger} for name, f in self._others.items()])
        function = self._others.get(path.removeprefix("/admin/functions/"))
        if method != "POST" or function is None:
            return Response(status_code=404)
        if function.type != "timerTrigger":
            return JSONResponse({"error": f"only timers can be run from here, not a {function.type}"}, status_code=400)
        await _run_timer(function)
        return Response(status_code=202)


async def _run_timer(function: Function) -> None:
    outcome = function.handler(**{str(function.trigger["name"]): TimerRequest(past_due=False)})
    if inspect.isawaitable(outcome):
        await outcome


def _routed_path(scope: Scope) -> str:
    """The decoded path, but for an encoded slash, which stays as it is and so never splits a segment."""
    raw: bytes = scope.get("raw_path", b"")
    if b"%2F" not in raw and b"%2f" not in raw:
        return str(scope["path"])
    pieces = raw.decode("ascii").replace("%2f", "%2F").split("%2F")
    return "%2F".join(unquote(piece) for piece in pieces)


def functions_of(app: FunctionRegister) -> list[Function]:
    """The functions of a FunctionApp, each with the trigger binding that it would report to the Functions host."""
    return [_function(builder) for builder in app.get_functions()]


def _function(builder: Any) -> Function:
    bindings = [json.loads(binding) for binding in builder.get_raw_bindings()]
    trigger = next(binding for binding in bindings if binding["type"].endswith("Trigger"))
    return Function(builder.get_function_name(), trigger, builder.get_user_function())


def route_prefix(directory: Path) -> str:
    """`extensions.http.routePrefix` of the folder's host.json; the Functions host's own default is api."""
    settings = json.loads((directory / "host.json").read_text())
    return str(settings.get("extensions", {}).get("http", {}).get("routePrefix", "api"))


def build(directory: str | Path) -> Host:
    """The ASGI application for a folder with function_app.py and host.json."""
    folder = Path(directory).resolve()
    return Host(functions_of(_function_app(folder)), route_prefix(folder), str(folder))


def _function_app(folder: Path) -> FunctionRegister:
    sys.path.insert(0, str(folder))
    sys.modules.pop("function_app", None)  # a FunctionApp gives out its functions only once
    module = importlib.import_module("function_app")
    apps = {id(value): value for value in vars(module).values() if isinstance(value, FunctionRegister)}
    if len(apps) != 1:
        raise AppError(f"{module.__file__} must hold exactly one FunctionApp, not {len(apps)}")
    return next(iter(apps.values()))


class Server(uvicorn.Server):
    """A uvicorn server that says when it listens. Whoever runs it may have `handle_exit` called by signals.

    The worker in the cloud takes SIGTERM with the same method, by which an app finds the server that is about to end.
    """

    def __init__(self, app: ASGIApp, drain_seconds: int | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                lifespan="off",
                log_level="warning",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=drain_seconds,
                ws="none",
            )
        )
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.listening.set()  # a failure shows where the server's task is awaited

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drains; the second time ends the process at once."""
        if self.should_exit:
            os._exit(1)
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(
    app: ASGIApp, sock: socket.socket | None = None, drain_seconds: int | None = None
) -> AsyncIterator[str]:
    """Serve `app` in the running loop, on `sock` or a free loopback port; yields the base URL.

    On leaving, running answers finish, or are cancelled after `drain_seconds` when that is given.
    """
    sock = sock or listen(0)
    server = Server(app, drain_seconds)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await server.listening.wait()
        yield address(sock)
    finally:
        server.should_exit = True
        await task


def address(sock: socket.socket) -> str:
    return "http://{}:{}".format(*sock.getsockname())


async def serve_until_signalled(app: ASGIApp, sock: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then drain. A second signal ends the process without waiting."""
    server = Server(app, None)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    running = asyncio.create_task(server.serve(sockets=[sock]))
    await server.listening.wait()
    on_ready(address(sock))
    await running


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.host", description=__doc__.partition("\n")[0])
    parser.add_argument("--app", default=".", help="folder with function_app.py and host.json (default: this one)")
    parser.add_argument("--port", type=a_port, default=7071, help="loopback port, 0 for any free one (default: 7071)")
    parser.add_argument("--reuse-port", action="store_true", help="let several processes share the port")
    options = parser.parse_args()
    sock = listen(options.port, options.reuse_port)
    os.chdir(options.app)
    try:
        app = build(".")
    except (AppError, RouteError) as error:
        raise SystemExit(str(error)) from None
    asyncio.run(serve_until_signalled(app, sock, lambda url: print(url, flush=True)))


if __name__ == "__main__":
    main()
