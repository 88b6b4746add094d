"""One account at Anthropic: chat completions go in and come out, Messages are what is sent and read.

Sources: the Messages API reference, "Versioning" and "Errors" in Anthropic's documentation, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from pydantic_core import to_json

from routing.errors import BadReply, Unauthorized
from routing.providers.anthropic_native import MessagesWatch, read_count, read_message
from routing.providers.anthropic_reply import completion, from_error, reply_headers
from routing.providers.anthropic_request import Options, messages_request, unsayable
from routing.providers.anthropic_stream import AnthropicStream
from routing.providers.base import Credential, Native, Protocol, Provider, Reply, Stream
from routing.providers.classify import error_object
from routing.providers.http import Http, retry_after
from routing.providers.native import NativeStream, in_one_piece
from routing.types import Target, Usage
from routing.wire import ChatRequest

_EVENT_STREAM = "text/event-stream"
_NONE: Mapping[str, str] = {}


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
        self._models_url = self._url.copy_with(path=self._url.path.removesuffix("messages") + "models")
        self._count_url = httpx.URL(f"{self._url}/count_tokens")
        self._version = {"anthropic-version": version}
        self._options = Options(default_max_tokens, sampling)
        self._http = Http()

    async def chat(self, target: Target, request: ChatRequest) -> Reply:
        body, dropped = messages_request(target, request, self._options)
        response = await self._post(self._url, to_json(body))
        document, usage, model = completion(await self._http.read(response))
        return Reply(to_json(document), usage, model, reply_headers(response.headers), dropped)

    async def stream(self, target: Target, request: ChatRequest) -> Stream:
        body, dropped = messages_request(target, request, self._options)
        response = await self._events(to_json({**body, "stream": True}))
        return AnthropicStream(self._http, response, tell_usage=request.wants_usage, dropped=dropped)

    async def check(self, target: Target) -> None:
        headers = {**self._version, **await self._credential.headers()}
        await self._http.read(await self._accepted(await self._http.get(self._models_url, headers)))

    def cannot_say(self, request: ChatRequest) -> str | None:
        return next(unsayable(request.fields), None)

    def speaks(self, protocol: Protocol) -> bool:
        return protocol in ("messages", "count_tokens")

    async def native(self, request: Native) -> Reply:
        if request.protocol == "count_tokens":
            response = await self._post(self._count_url, request.body, request.headers)
            read_count(body := await self._http.read(response))
            return Reply(body, Usage(), headers=reply_headers(response.headers))
        response = await self._post(self._url, request.body, request.headers)
        usage, model = read_message(body := await self._http.read(response))
        return Reply(body, usage, model, reply_headers(response.headers))

    async def native_stream(self, request: Native) -> Stream:
        response = await self._events(request.body, request.headers)
        return NativeStream(self._http, response, reply_headers(response.headers), MessagesWatch())

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _events(self, body: bytes, given: Mapping[str, str] = _NONE) -> httpx.Response:
        """The response to a request for a stream. Raises as `chat` does, also when it is no stream."""
        response = await self._post(self._url, body, given)
        if not response.headers.get("content-type", _EVENT_STREAM).startswith(_EVENT_STREAM):
            whole = await self._http.read(response)
            raise in_one_piece(completion(whole)[1])  # unless it is an error, which tells more
        return response

    async def _post(self, url: httpx.URL, body: bytes, given: Mapping[str, str] = _NONE) -> httpx.Response:
        """`given` are the caller's headers: who speaks the protocol itself says in which version."""
        headers = {**self._version, **given, **await self._credential.headers()}
        return await self._accepted(await self._http.post(url, headers, body))

    async def _accepted(self, response: httpx.Response) -> httpx.Response:
        """The response if it is a 200; else raises what its status and error mean."""
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
            return error_object(self._credential.conceal(await self._http.read(response)))
        except BadReply:
            return {}
