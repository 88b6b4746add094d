"""From HTTP to types and back: who asks, what they want, and the answer with the headers that explain it."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import unquote

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from routing import catalogue, events
from routing.answers import EventStream, LateRelay, abandon, decision_headers, error_response, hung_up, json_response
from routing.errors import (
    BodyTooLarge,
    CallerLeft,
    Misconfigured,
    RouterError,
    UnknownModel,
    WrongContentType,
)
from routing.router import Asked, OpenAnswer
from routing.types import Caller
from routing.wire import ChatRequest
from routing.wiring import App, current

_log = logging.getLogger(__name__)
T = TypeVar("T")
Refuse = Callable[[RouterError, str], Response]  # an error and the request's id, in the shape that a caller reads
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_JSON = re.compile(r"application/([\w.+-]+\+)?json\s*(;.*)?", re.IGNORECASE)


def endpoint(
    handle: Callable[[App, Request, str], Awaitable[Response]], refuse: Refuse = error_response
) -> Callable[[Request], Awaitable[Response]]:
    """Gives a handler the app and a request id, and turns every error into its callers' shape, OpenAI's unless said."""

    async def answer(request: Request) -> Response:
        request_id = _request_id(request)
        try:
            app = await current()
        except RouterError as error:
            return refuse(error, request_id)
        exchange = app.telemetry.exchange(request_id, request.url.path, request.headers)
        answered = await _handled(handle, app, request, request_id)
        name = type(answered).__name__ if isinstance(answered, RouterError) else None
        response = refuse(answered, request_id) if isinstance(answered, RouterError) else answered
        if exchange is not None:
            exchange.answered(response.status_code, error=name, streaming=isinstance(response, EventStream))
        return response

    return answer


async def _handled(
    handle: Callable[[App, Request, str], Awaitable[Response]], app: App, request: Request, request_id: str
) -> Response | RouterError:
    """The response, or the error to answer with instead."""
    try:
        return await handle(app, request, request_id)
    except RouterError as error:
        return error
    except ClientDisconnect:
        return CallerLeft("The caller left.")
    except Exception:
        _log.exception("A request failed in the router itself (request id %s)", request_id)
        return RouterError("The router failed; the log has the reason.")


@endpoint
async def chat(app: App, request: Request, request_id: str) -> Response:
    """`POST /v1/chat/completions`."""
    caller = await app.callers.authenticate(request.headers)
    asked = await asked_by(caller, app, request, request_id)
    if asked.request.stream and events.wanted(request.headers):
        return await watched(request, app, asked)
    if asked.request.stream:
        opening = app.router.open(asked)
        return await streamed(request, opening, app.config.file.server.keepalive_seconds, asked)
    answer = await unless_gone(request, app.router.chat(asked))
    return json_response(answer.body, request_id, decision_headers(answer))


async def asked_by(caller: Caller, app: App, request: Request, request_id: str) -> Asked:
    """The chat request in an HTTP request. Raises what is wrong with it."""
    body = await body_of(request, app.config.file.server.max_body_bytes)
    return Asked(ChatRequest.parse(body), caller, request_id, request.headers.get("x-router-task"))


@endpoint
async def models(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/models`: every name a request may ask for."""
    caller = await app.callers.authenticate(request.headers)
    data = catalogue.listed(app.config, caller, app.planner.rates)
    return json_response(to_json({"object": "list", "data": data}), request_id)


@endpoint
async def model(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/models/{id}`."""
    caller = await app.callers.authenticate(request.headers)
    name = unquote(request.path_params["id"])
    return json_response(to_json(catalogue.described(name, app.config, caller, app.planner.rates)), request_id)


async def health(request: Request) -> Response:
    """`GET /health`: the process is alive; 503 with every reason when its configuration is refused."""
    request_id = _request_id(request)
    try:
        await current()
    except Misconfigured as error:
        return json_response(to_json({"status": "refused", "errors": error.errors}), request_id, status=503)
    return json_response(to_json({"status": "ok"}), request_id)


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
    parts, size = [], int(declared) if declared.isdecimal() else 0
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
    gone = asyncio.ensure_future(hung_up(request.receive))
    either: set[asyncio.Future[Any]] = {task, gone}
    try:
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        left = gone.done() and not task.done()
    except BaseException:
        abandon(task)
        raise
    finally:
        gone.cancel()
    if left:
        abandon(task)
    return not left


async def streamed(
    request: Request, opening: Coroutine[Any, Any, OpenAnswer], keepalive_seconds: float, asked: Asked
) -> Response:
    """The stream with its true status and headers if it opens soon; else 200 at once, kept alive until it does."""
    task, dialect = asyncio.ensure_future(opening), asked.dialect
    if not await _wait(request, task, keepalive_seconds):
        raise CallerLeft("The caller left.")
    headers = {"x-request-id": asked.id}
    if not task.done():
        return EventStream(LateRelay(task, asked.id, dialect), headers, keepalive_seconds, dialect.keepalive)
    answer = task.result()
    return EventStream(answer.relay, {**decision_headers(answer), **headers}, keepalive_seconds, dialect.keepalive)


async def watched(request: Request, app: App, asked: Asked) -> Response:
    """The stream with what the router does in it, begun as soon as there is a plan."""
    relay = events.Watched(asked, app.router.open, app.decisions.get)
    begun = asyncio.ensure_future(relay.headers())
    try:
        here = await _wait(request, begun, None)
    except BaseException:
        relay.leave()
        raise
    if not here:
        relay.leave()
        raise CallerLeft("The caller left.")
    headers = {**begun.result(), "x-request-id": asked.id}
    return EventStream(relay, headers, app.config.file.server.keepalive_seconds, asked.dialect.keepalive)


def _request_id(request: Request) -> str:
    """The caller's own id where it gave a sound one, so that both sides find the request by it."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
