"""Where a stand-in listens: its endpoints, its control surface under /_standin, and its socket on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from local.standin_behaviour import Behaviour, changed, parse_queue
from local.standin_exchange import Endpoint
from local.standin_state import StandIn
from local.standin_wire import Answer, Asked, Refusal, decode

_KEEP_ALIVE = 75  # seconds an idle connection stays open, longer than clients keep it


def app(standin: StandIn) -> ASGIApp:
    """The stand-in's endpoints as an ASGI app."""
    routes = [
        Route(path, Endpoint(standin, operation), methods=[method])
        for method, path, operation in standin.dialect.operations()
    ]
    return Starlette(routes=[*routes, _control(standin), Route("/{path:path}", Endpoint(standin, _nowhere))])


@asynccontextmanager
async def listening(standin: StandIn, port: int = 0) -> AsyncIterator[StandIn]:
    """Serves `standin` in the running loop on 127.0.0.1; port 0 takes a free one. Raises OSError if it is taken."""
    config = Config(
        app(standin), http="httptools", ws="none", lifespan="off", log_config=None, timeout_keep_alive=_KEEP_ALIVE
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Protocol(config, state, {}, loop), "127.0.0.1", port, backlog=2048)
    standin.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield standin
    finally:
        server.close()
        await _close(state)


class _Protocol(HttpToolsProtocol):
    """Lets a fault reach the connection, which ASGI has no word for."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"standin.transport": {"transport": self.transport}}


async def _close(state: ServerState) -> None:
    """Ends every connection now; the tasks behind them end as if their callers had left."""
    for connection in list(state.connections):
        connection.transport.abort()
    await asyncio.sleep(0)  # one turn of the loop, in which every connection hears of its end
    if state.tasks:
        await asyncio.wait(set(state.tasks), timeout=1)


def _nowhere(asked: Asked, behaviour: Behaviour) -> Answer:
    raise Refusal(404, f"Invalid URL ({asked.method} {asked.path})")


def _control(standin: StandIn) -> Route:
    async def control(request: Request) -> JSONResponse:
        """GET tells the counters, PUT changes the behaviour or the queue, DELETE starts anew."""
        try:
            if request.method == "PUT":
                _apply(standin, await request.body())
        except ValueError as error:
            return JSONResponse({"error": {"message": str(error)}}, status_code=400)
        if request.method == "DELETE":
            standin.reset()
        return JSONResponse(standin.counters())

    return Route("/_standin", control, methods=["GET", "PUT", "DELETE"])


def _apply(standin: StandIn, body: bytes) -> None:
    """Reads everything before it changes anything. Raises ValueError."""
    given = decode(body)
    queue = parse_queue(given.pop("queue")) if isinstance(given, dict) and "queue" in given else None
    standin.behaviour = changed(standin.behaviour, given)
    if queue is not None:
        standin.queue.clear()
        standin.fail(*queue)
