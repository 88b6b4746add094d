"""`POST /v1/messages` and its count of tokens: Anthropic's Messages API in front of every provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from routing.answers import decision_headers, error_response, json_response
from routing.api import body_of, endpoint, streamed, unless_gone
from routing.errors import RouterError
from routing.messages import Messages, MessagesErrors, TokenCount
from routing.messages_request import Countable, MessagesRequest, as_chat
from routing.router import Asked
from routing.wire import ChatRequest, parse_object
from routing.wiring import App

_PASSED = ("anthropic-version", "anthropic-beta")
_ERRORS = MessagesErrors()
Endpoint = Callable[[Request], Awaitable[Response]]


def _refuse(error: RouterError, request_id: str) -> Response:
    return _named(error_response(error, request_id, _ERRORS), request_id)


_endpoint = partial(endpoint, refuse=_refuse)


async def _messages(app: App, request: Request, request_id: str) -> Response:
    asked, dialect = await asked_by(app, request, request_id)
    if asked.request.stream:
        opening = dialect.located(app.router.open(asked))
        return _named(await streamed(request, opening, app.config.file.server.keepalive_seconds, asked), request_id)
    answer = await unless_gone(request, dialect.located(app.router.chat(asked)))
    return _named(json_response(answer.body, request_id, decision_headers(answer)), request_id)


async def _count_tokens(app: App, request: Request, request_id: str) -> Response:
    asked, dialect = await asked_by(app, request, request_id, TokenCount, Countable)
    answer = await unless_gone(request, dialect.located(app.router.count(asked)))
    if isinstance(answer, int):
        body = to_json({"input_tokens": answer})
        return _named(json_response(body, request_id, {"x-router-estimated": "true"}), request_id)
    return _named(json_response(answer.body, request_id), request_id)


messages: Endpoint = _endpoint(_messages)
count_tokens: Endpoint = _endpoint(_count_tokens)


async def asked_by(
    app: App,
    request: Request,
    request_id: str,
    kind: type[Messages] = Messages,
    shape: type[Countable] = MessagesRequest,
) -> tuple[Asked, Messages]:
    """The Messages request in an HTTP request. Raises what is wrong with it."""
    caller = await app.callers.authenticate(request.headers)
    fields = parse_object(await body_of(request, app.config.file.server.max_body_bytes))
    translated = as_chat(fields, shape)
    headers = {name: request.headers[name] for name in _PASSED if name in request.headers}
    label = request.headers.get("x-router-task")
    dialect = kind(fields, translated, headers)
    return Asked(ChatRequest.of(translated.fields), caller, request_id, label, dialect), dialect


def _named(response: Response, request_id: str) -> Response:
    """The id under the name by which Anthropic's clients know it."""
    response.headers["request-id"] = request_id
    return response
