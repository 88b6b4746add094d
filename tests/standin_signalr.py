"""An Azure SignalR Service as the router sees it: it hands out tokens for clients, and takes what they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class SignalR:
    """Takes the tokens that `good` takes."""

    def __init__(self, good: Callable[[str], bool]) -> None:
        self.good = good
        self.url = ""
        self.status: int | None = None  # of every answer, in place of a good one
        self.asked: list[tuple[str, dict[str, str]]] = []  # path and query of each request with a good token
        self.sent: list[Any] = []  # bodies

    async def token(self, request: web.Request) -> web.Response:
        return self._refusal(request) or web.json_response({"token": f"for-{request.query['userId']}"})

    async def send(self, request: web.Request) -> web.Response:
        refusal = self._refusal(request)
        if refusal is None:
            self.sent.append(await request.json())
        return refusal or web.Response(status=202)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if not self.good(request.headers.get("authorization", "").removeprefix("Bearer ")):
            return web.Response(status=401, headers={"www-authenticate": 'Bearer error="invalid_token"'})
        self.asked.append((request.path, dict(request.query)))
        return web.Response(status=self.status) if self.status else None


@asynccontextmanager
async def serving(good: Callable[[str], bool]) -> AsyncIterator[SignalR]:
    service, app = SignalR(good), web.Application()
    app.router.add_post("/api/hubs/{hub}/:generateToken", service.token)
    app.router.add_post("/api/hubs/{hub}/:send", service.send)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield service
    finally:
        await runner.cleanup()
