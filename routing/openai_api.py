"""OpenAI's endpoints beside chat: vectors, and the text completions that came before chat."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from routing.answers import decision_headers, json_response
from routing.api import body_of, endpoint, streamed, unless_gone
from routing.beside_chat import COMPLETIONS, EMBEDDINGS
from routing.dialects import Dialect
from routing.requests import CompletionRequest, EmbeddingRequest
from routing.router import Asked
from routing.wiring import App


@endpoint
async def embeddings(app: App, request: Request, request_id: str) -> Response:
    """`POST /v1/embeddings`: another target answers only if it makes the same vectors."""
    return await _whole(app, request, await embeddings_asked(app, request, request_id))


@endpoint
async def completions(app: App, request: Request, request_id: str) -> Response:
    """`POST /v1/completions`: for targets that support them; chat is not asked to imitate them."""
    asked = await completions_asked(app, request, request_id)
    if asked.request.stream:
        return await streamed(request, app.router.open(asked), app.config.file.server.keepalive_seconds, asked)
    return await _whole(app, request, asked)


async def embeddings_asked(app: App, request: Request, request_id: str) -> Asked:
    """Whose vectors for what. Raises what is wrong with the request."""
    return await _asked(app, request, request_id, EmbeddingRequest, EMBEDDINGS)


async def completions_asked(app: App, request: Request, request_id: str) -> Asked:
    """What is to be continued. Raises what is wrong with the request."""
    return await _asked(app, request, request_id, CompletionRequest, COMPLETIONS)


async def _whole(app: App, request: Request, asked: Asked) -> Response:
    answer = await unless_gone(request, app.router.chat(asked))
    return json_response(answer.body, asked.id, decision_headers(answer))


async def _asked(
    app: App,
    request: Request,
    request_id: str,
    shape: type[EmbeddingRequest] | type[CompletionRequest],
    dialect: Dialect,
) -> Asked:
    """The request in an HTTP request. Raises what is wrong with it."""
    caller = await app.callers.authenticate(request.headers)
    body = await body_of(request, app.config.file.server.max_body_bytes)
    return Asked(shape.parse(body), caller, request_id, request.headers.get("x-router-task"), dialect)
