"""From HTTP to types and back: who asks, what they want, and the answer with the headers that explain it."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict
from typing import Any, TypeVar
from urllib.parse import unquote

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from routing.errors import (
    BodyTooLarge,
    CallerLeft,
    Misconfigured,
    RouterError,
    RunError,
    UnknownModel,
    WrongContentType,
)
from routing.relay import Relay, error_event
from routing.router import OpenAnswer
from routing.types import Decision
from routing.wire import ChatRequest
from routing.wiring import App, current

_log = logging.getLogger(__name__)
T = TypeVar("T")
KEEPALIVE = b": keep-alive\n\n"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_UNPRINTABLE = re.compile(r"[^ -~]")
_JSON = re.compile(r"application/([\w.+-]+\+)?json\s*(;.*)?", re.IGNORECASE)


def endpoint(handle: Callable[[App, Request, str], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Gives a handler the app and a request id, and turns every error into OpenAI's shape."""

    async def answer(request: Request) -> Response:
        request_id = _request_id(request)
        try:
            return await handle(await current(), request, request_id)
        except RouterError as error:
            return error_response(error, request_id)
        except ClientDisconnect:
            return error_response(CallerLeft("The caller left."), request_id)
        except Exception:
            _log.exception("A request failed in the router itself (request id %s)", request_id)
            return error_response(RouterError("The router failed; the log has the reason."), request_id)

    return answer


@endpoint
async def chat(app: App, request: Request, request_id: str) -> Response:
    """`POST /v1/chat/completions`."""
    caller = await app.callers.authenticate(request.headers)
    chat_request = ChatRequest.parse(await body_of(request, app.config.file.server.max_body_bytes))
    if chat_request.stream:
        opening = app.router.open(chat_request, caller, request_id)
        return await _streamed(request, opening, app.config.file.server.keepalive_seconds, request_id)
    answer = await unless_gone(request, app.router.chat(chat_request, caller, request_id))
    headers = decision_headers(answer.decision, answer.reply.model, answer.reply.dropped, answer.overhead_seconds)
    return json_response(answer.reply.body, request_id, {**answer.reply.headers, **headers})


@endpoint
async def models(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/models`: every name a request may ask for."""
    await app.callers.authenticate(request.headers)
    listed = [_model(name) for name in sorted(app.config.routes)]
    return json_response(to_json({"object": "list", "data": listed}), request_id)


@endpoint
async def model(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/models/{id}`."""
    await app.callers.authenticate(request.headers)
    name = unquote(request.path_params["id"])
    app.config.route(name)
    return json_response(to_json(_model(name)), request_id)


async def health(request: Request) -> Response:
    """`GET /health`: the process is alive; 503 with every reason when its configuration is refused."""
    request_id = _request_id(request)
    try:
        await current()
    except Misconfigured as error:
        return json_response(to_json({"status": "refused", "errors": error.errors}), request_id, status=503)
    return json_response(to_json({"status": "ok"}), request_id)


@endpoint
async def ready(app: App, request: Request, request_id: str) -> Response:
    """`GET /ready`: 200 when at least one target of every route may be asked now."""
    shut = sorted(
        name
        for name, route in app.config.routes.items()
        if all(app.health.refusal(target.name) for target in route.targets)
    )
    body = {"status": "unavailable" if shut else "ready", "unavailable_routes": shut}
    return json_response(to_json(body), request_id, status=503 if shut else 200)


async def not_found(request: Request) -> Response:
    """Any other path."""
    error = UnknownModel("No such endpoint.", code="unknown_url")
    return error_response(error, _request_id(request))


async def body_of(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes. Raises BodyTooLarge and WrongContentType before reading what is of no use."""
    kind = request.headers.get("content-type")
    if kind is not None and not _JSON.fullmatch(kind):
        raise WrongContentType("The body must be JSON: send 'content-type: application/json'.")
    declared = request.headers.get("content-length", "")
    parts, size = [], int(declared) if declared.isdigit() else 0
    if size <= limit:
        size = 0
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > limit:
                break
    if size > limit:
        raise BodyTooLarge(f"The body is larger than {limit} bytes.")
    return b"".join(parts)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. A caller who hangs up cancels it, and CallerLeft is raised: the host itself never tells us."""
    task = asyncio.ensure_future(work)
    if not await _wait(request, task, None):
        raise CallerLeft("The caller left.")
    return task.result()


async def _wait(request: Request, task: asyncio.Future[T], seconds: float | None) -> bool:
    """True when the task is done or the time is up; False when the caller left, which cancels the task."""
    gone = asyncio.ensure_future(_gone(request))
    either: set[asyncio.Future[Any]] = {task, gone}
    try:
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        left = gone.done() and not task.done()
    except BaseException:
        _abandon(task)
        raise
    finally:
        gone.cancel()
    if left:
        _abandon(task)
    return not left


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _streamed(
    request: Request, opening: Coroutine[Any, Any, OpenAnswer], keepalive_seconds: float, request_id: str
) -> Response:
    """The stream with its true status and headers if it opens soon; else 200 at once, kept alive until it does."""
    task = asyncio.ensure_future(opening)
    if not await _wait(request, task, keepalive_seconds):
        raise CallerLeft("The caller left.")
    if not task.done():
        return EventStream(LateRelay(task, request_id), {"x-request-id": request_id}, keepalive_seconds)
    answer = task.result()
    headers = {
        **answer.headers,
        **decision_headers(answer.decision, answer.model, answer.dropped, answer.overhead_seconds),
    }
    clean = {name: _header(value) for name, value in headers.items()}
    return EventStream(answer.relay, {**clean, "x-request-id": request_id}, keepalive_seconds)


class EventStream(StreamingResponse):
    """Server-sent events: a comment fills every long silence, and the source always learns when nobody listens."""

    media_type = "text/event-stream"

    def __init__(self, source: Relay | LateRelay, headers: Mapping[str, str], keepalive_seconds: float) -> None:
        super().__init__(source, headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        self._source, self._keepalive_seconds = source, keepalive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._source.leave()

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sent = _Sent(send, self._keepalive_seconds)
        try:
            async for piece in self._source:
                await sent(piece)
        finally:
            sent.stop()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Sent:
    """Sends pieces of a body, and comments while there are none. One timer a stream, none a piece."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self._silent = False
        self._timer = asyncio.ensure_future(self._keep_alive())

    async def __call__(self, piece: bytes) -> None:
        self._silent = False
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    def stop(self) -> None:
        self._timer.cancel()

    async def _keep_alive(self) -> None:
        while True:
            self._silent = True
            await asyncio.sleep(self._seconds)
            if self._silent:
                await self._send({"type": "http.response.body", "body": KEEPALIVE, "more_body": True})


class LateRelay:
    """A stream whose headers had to be sent before it opened: from here an error can only be an event."""

    def __init__(self, opening: asyncio.Future[OpenAnswer], request_id: str) -> None:
        self._opening, self._request_id = opening, request_id
        self._said_wait = False
        self._over = False

    def __aiter__(self) -> LateRelay:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        if not self._said_wait:
            self._said_wait = True
            return KEEPALIVE
        try:
            answer = await self._opening
        except RouterError as error:
            self._over = True
            return error_event(error.body(), self._request_id, delivered=0)
        return await anext(answer.relay)

    def leave(self) -> None:
        _abandon(self._opening)


def _abandon(work: asyncio.Future[Any]) -> None:
    """Ends work that nobody waits for, also when it ended with a stream in its hands at that very moment."""
    work.cancel()
    work.add_done_callback(_leave_result)


def _leave_result(work: asyncio.Future[Any]) -> None:
    if not work.cancelled() and work.exception() is None and isinstance(result := work.result(), OpenAnswer):
        result.relay.leave()


def decision_headers(
    decision: Decision, model: str | None, dropped: tuple[str, ...], overhead_seconds: float
) -> dict[str, str]:
    """The decision in short, on every answer."""
    headers = {
        "x-router-target": decision.target or "",
        "x-router-model": model or "",
        "x-router-task": decision.plan.task.kind,
        "x-router-strategy": decision.plan.strategy,
        "x-router-attempts": str(len(decision.attempts) + 1),
        "x-router-decision-id": decision.id,
        "x-router-dropped": ", ".join(dropped),
        "x-router-overhead-ms": f"{overhead_seconds * 1000:.2f}",
    }
    return {name: value for name, value in headers.items() if value}


def error_response(error: RouterError, request_id: str) -> Response:
    """The error in OpenAI's shape, with the headers by which its clients decide whether to try again."""
    headers = {"x-should-retry": "true" if error.worth_retrying else "false"}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = error.body()
    if isinstance(error, RunError):
        headers["x-router-attempts"] = str(len(error.attempts))
        body["router"] = {"attempts": [asdict(attempt) for attempt in error.attempts]}
    return json_response(to_json(body), request_id, headers, status=error.status)


def json_response(
    body: bytes, request_id: str, headers: Mapping[str, str] | None = None, *, status: int = 200
) -> Response:
    """JSON that is written already, with clean headers."""
    clean = {name: _header(value) for name, value in (headers or {}).items()}
    return Response(body, status, {**clean, "x-request-id": request_id}, media_type="application/json")


def _header(value: str) -> str:
    """A value that cannot end its header: what providers and callers name ends up here."""
    return _UNPRINTABLE.sub("?", value)[:256]


def _request_id(request: Request) -> str:
    """The caller's own id where it gave a sound one, so that both sides find the request by it."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "llm-router"}
