"""One account at Anthropic: chat completions go in and come out, Messages are what is sent and read.

Sources: the Messages API reference, "Versioning" and "Errors" in Anthropic's documentation, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from pydantic_core import to_json

from routing.errors import BadReply, Unauthorized
from routing.providers.anthropic_reply import completion, from_error, reply_headers
from routing.providers.anthropic_request import Options, messages_request
from routing.providers.anthropic_stream import AnthropicStream
from routing.providers.base import Credential, Provider, Reply, Stream
from routing.providers.classify import error_object
from routing.providers.http import Http, retry_after
from routing.types import Target
from routing.wire import ChatRequest

_EVENT_STREAM = "text/event-stream"


class AnthropicProvider(Provider):
    """Translates at both ends, so that whoever calls it knows nothing of Messages."""

    def __init__(
        self,
        name: str,
        credential: Credential,
        base_url: str,
        *,
        version: str,
        default_max_tokens: int,
        sampling: bool,
    ) -> None:
        self.name = name
        self._credential = credential
        self._url = httpx.URL(base_url.rstrip("/").removesuffix("/v1") + "/v1/messages")
        self._version = {"anthropic-version": version}
        self._options = Options(default_max_tokens, sampling)
        self._http = Http()

    async def chat(self, target: Target, request: ChatRequest) -> Reply:
        body, dropped = messages_request(target, request, self._options)
        response = await self._post(body)
        document, usage, model = completion(await self._http.read(response))
        return Reply(to_json(document), usage, model, reply_headers(response.headers), dropped)

    async def stream(self, target: Target, request: ChatRequest) -> Stream:
        body, dropped = messages_request(target, request, self._options)
        response = await self._post({**body, "stream": True})
        if not response.headers.get("content-type", _EVENT_STREAM).startswith(_EVENT_STREAM):
            whole = await self._http.read(response)
            completion(whole)  # raises when it is an error, which tells more than what follows
            raise BadReply("The provider answered a streamed request in one piece.")
        return AnthropicStream(self._http, response, tell_usage=request.wants_usage, dropped=dropped)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        headers = {**self._version, **await self._credential.headers()}
        response = await self._http.post(self._url, headers, to_json(body))
        if response.status_code == 200:
            return response
        error = await self._error(response)
        failure = from_error(error, response.status_code, retry_after(response.headers))
        if isinstance(failure, Unauthorized):
            self._credential.renew()
        raise failure

    async def _error(self, response: httpx.Response) -> Mapping[str, Any]:
        """The error of a refusal; empty when its body is cut, for the status says enough."""
        try:
            return error_object(await self._http.read(response))
        except BadReply:
            return {}
