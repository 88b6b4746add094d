"""Anthropic's Messages API behind the contract of every provider: chat completions go in and come out.

Sources: the Messages API reference, "Versioning" and "Errors" in Anthropic's documentation, as of November 2026.
"""

from __future__ import annotations

from typing import Any, Literal

import httpx
from pydantic import AnyHttpUrl, Field, model_validator
from pydantic_core import to_json

from routing.errors import BadReply, Unauthorized
from routing.providers.anthropic_reply import completion, from_error, reply_headers
from routing.providers.anthropic_request import Dialect, messages_request
from routing.providers.anthropic_stream import AnthropicStream
from routing.providers.base import Credential, Provider, ProviderSettings, Reply, Stream
from routing.providers.classify import error_object
from routing.providers.http import Http, retry_after
from routing.types import Target
from routing.wire import ChatRequest

KEY_HEADER = ("x-api-key", "")
_EVENT_STREAM = "text/event-stream"
_WITHOUT_SAMPLING = "2026-10-21"  # the first version of the API that knows neither temperature nor top_p


class AnthropicSettings(ProviderSettings):
    """`type = "anthropic"`: the Messages API, at Anthropic or at a service that speaks it."""

    type: Literal["anthropic"]
    base_url: AnyHttpUrl = AnyHttpUrl("https://api.anthropic.com")
    version: str = Field(default="2023-06-01", pattern=r"^\d{4}-\d{2}-\d{2}$")  # the header `anthropic-version`
    default_max_tokens: int = Field(default=8_192, ge=1)  # where neither the request nor the target says one
    sampling: bool = False  # hand on temperature and top_p, which models since Claude Opus 4.7 refuse

    @model_validator(mode="after")
    def _sampling_is_known(self) -> AnthropicSettings:
        if self.sampling and self.version >= _WITHOUT_SAMPLING:
            raise ValueError(f"sampling = true needs a version before {_WITHOUT_SAMPLING}, which takes no temperature")
        return self


def build(name: str, settings: AnthropicSettings, credential: Credential) -> Provider:
    return AnthropicProvider(name, settings, credential)


class AnthropicProvider(Provider):
    """Translates at both ends, so that whoever calls it knows nothing of Messages."""

    def __init__(self, name: str, settings: AnthropicSettings, credential: Credential) -> None:
        self.name = name
        self._credential = credential
        self._url = httpx.URL(str(settings.base_url).rstrip("/").removesuffix("/v1") + "/v1/messages")
        self._version = {"anthropic-version": settings.version}
        self._dialect = Dialect(settings.default_max_tokens, settings.sampling)
        self._http = Http()

    async def chat(self, target: Target, request: ChatRequest) -> Reply:
        body, dropped = messages_request(target, request, self._dialect)
        response = await self._post(body)
        document, usage, model = completion(await self._http.read(response))
        return Reply(to_json(document), usage, model, reply_headers(response.headers), dropped)

    async def stream(self, target: Target, request: ChatRequest) -> Stream:
        body, dropped = messages_request(target, request, self._dialect)
        response = await self._post({**body, "stream": True})
        if not response.headers.get("content-type", _EVENT_STREAM).startswith(_EVENT_STREAM):
            completion(await self._http.read(response))  # raises when it is an error, which tells more than what follows
            raise BadReply("The provider answered a streamed request in one piece.")
        return AnthropicStream(self._http, response, tell_usage=request.wants_usage, dropped=dropped)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _post(self, body: dict[str, Any]) -> httpx.Response:
        headers = {**self._version, **await self._credential.headers()}
        response = await self._http.post(self._url, headers, to_json(body))
        if response.status_code == 200:
            return response
        error = error_object(await self._http.read(response))
        failure = from_error(error, response.status_code, retry_after(response.headers))
        if isinstance(failure, Unauthorized):
            self._credential.renew()
        raise failure
