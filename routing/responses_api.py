"""`POST /v1/responses`: OpenAI's Responses API in front of every provider, keeping nothing between requests."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from routing.answers import decision_headers, json_response
from routing.api import body_of, endpoint, streamed, unless_gone
from routing.responses import Responses
from routing.responses_request import as_chat
from routing.router import Asked
from routing.wire import ChatRequest, parse_object
from routing.wiring import App


@endpoint
async def responses(app: App, request: Request, request_id: str) -> Response:
    """`POST /v1/responses`."""
    asked, dialect = await asked_by(app, request, request_id)
    if asked.request.stream:
        opening = dialect.located(app.router.open(asked))
        return await streamed(request, opening, app.config.file.server.keepalive_seconds, asked)
    answer = await unless_gone(request, dialect.located(app.router.chat(asked)))
    return json_response(answer.body, request_id, decision_headers(answer))


async def asked_by(app: App, request: Request, request_id: str) -> tuple[Asked, Responses]:
    """The Responses request in an HTTP request. Raises what is wrong with it."""
    caller = await app.callers.authenticate(request.headers)
    fields = parse_object(await body_of(request, app.config.file.server.max_body_bytes))
    translated = as_chat(fields)
    named = (fields.get("metadata") or {}).get("task_type")  # of the same meaning as in a chat request
    label = request.headers.get("x-router-task") or (named if isinstance(named, str) else None)
    dialect = Responses(fields, translated, {})
    return Asked(ChatRequest.of(translated.fields), caller, request_id, label, dialect), dialect
