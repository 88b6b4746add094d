"""Any server that speaks OpenAI's chat completions: requests and replies pass through as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

import httpx
from pydantic import AfterValidator, AnyHttpUrl, Field, model_validator
from pydantic_core import to_json

from routing.errors import BadReply, ProviderError, Unauthorized
from routing.providers.base import Chunk, Credential, Native, Protocol, Provider, ProviderSettings, Reply, Stream
from routing.providers.classify import error_object, from_error_in_reply, from_status
from routing.providers.embeddings import check_vectors
from routing.providers.http import Http, drain, passed_headers, retry_after
from routing.providers.native import NativeStream, an_object, counted, in_one_piece
from routing.providers.quirks import Quirks, QuirkSettings, shaped
from routing.providers.responses import read_response, watch
from routing.providers.services import SERVICES, Service
from routing.providers.sse import EventSplitter, ServerSentEvent
from routing.requests import AnyRequest, CompletionRequest, EmbeddingRequest
from routing.types import Target
from routing.wire import ChatRequest, usage_of

DONE = b"data: [DONE]\n\n"
KEY_HEADER = ("authorization", "Bearer ")
_EVENT_STREAM = "text/event-stream"
_OPENAI = "api.openai.com"
CHAT, EMBEDDINGS, COMPLETIONS, MODELS = "chat/completions", "embeddings", "completions", "models"  # below a base
Address = Callable[[Target, str], httpx.URL]  # where a target's requests of one of these kinds go
_PLAIN = Quirks()


def _service(value: str) -> str:
    if value not in SERVICES:
        raise ValueError(f'no service "{value}"; services are {", ".join(SERVICES)}')
    return value


ServiceName = Annotated[str, AfterValidator(_service), Field(json_schema_extra={"enum": list(SERVICES)})]


class OpenAISettings(ProviderSettings):
    """`type = "openai"`: OpenAI itself, or any server compatible with it at `base_url`."""

    type: Literal["openai"]
    service: ServiceName | None = None  # a row of docs/services.md: its address, its key and its quirks
    base_url: AnyHttpUrl = AnyHttpUrl("https://api.openai.com/v1")
    quirks: QuirkSettings = QuirkSettings()
    stream_usage: bool = True  # ask for usage at a stream's end; false for servers that refuse `stream_options`
    responses: bool | None = None  # hand Responses requests on as they are; if not said, to OpenAI itself only

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        """The service's address where none is said, and its usual key: one's own address gets only one's own key."""
        named = given.get("service") if isinstance(given, dict) else None
        row = SERVICES.get(named) if isinstance(named, str) else None
        if row is None or "base_url" in given:
            return given
        key = {"key": f"env:{row.key}"} if row.key else {}
        return {"base_url": row.base_url, **key, **given}

    @property
    def row(self) -> Service | None:
        """The service's row."""
        return SERVICES[self.service] if self.service else None


def build(name: str, settings: OpenAISettings, credential: Credential) -> Provider:
    base_url = httpx.URL(str(settings.base_url))
    if base_url.path == "/":
        base_url = base_url.copy_with(path="/v1")  # where every compatible server has it
    base = str(base_url).rstrip("/")
    urls = {kind: httpx.URL(f"{base}/{kind}") for kind in (CHAT, EMBEDDINGS, COMPLETIONS, MODELS)}
    row = settings.row
    has_responses = base_url.host == _OPENAI if settings.responses is None else settings.responses
    return OpenAIProvider(
        name,
        credential,
        lambda _, kind: urls[kind],
        stream_usage=settings.stream_usage,
        quirks=settings.quirks.over(row.quirks if row else _PLAIN),
        embedding_quirks=row.embedding_quirks if row else _PLAIN,
        responses_url=httpx.URL(f"{base}/responses") if has_responses else None,
    )


class OpenAIProvider(Provider):
    """`address` says where a target's requests go; that and the credential are all that Azure does differently."""

    def __init__(
        self,
        name: str,
        credential: Credential,
        address: Address,
        *,
        stream_usage: bool = True,
        responses_url: httpx.URL | None = None,
        quirks: Quirks = _PLAIN,
        embedding_quirks: Quirks = _PLAIN,
    ) -> None:
        self.name = name
        self._credential = credential
        self._address = address
        self._quirks, self._embedding_quirks = quirks, embedding_quirks
        self._stream_usage = stream_usage and quirks.takes("stream_options")
        self._responses_url = responses_url  # None: Responses are not spoken here
        self._http = Http()

    async def chat(self, target: Target, request: ChatRequest) -> Reply:
        return await self._whole(target, request, CHAT, self._quirks)

    async def complete(self, target: Target, request: CompletionRequest) -> Reply:
        return await self._whole(target, request, COMPLETIONS, _PLAIN)

    async def embed(self, target: Target, request: EmbeddingRequest) -> Reply:
        payload, dropped = _payload(target, request, self._embedding_quirks)
        response = await self._post(self._address(target, EMBEDDINGS), payload)
        body = await self._http.read(response)
        fields = an_object(body)
        with counted(lambda: usage_of(fields)):
            check_vectors(_unfailed(fields), request)
        return Reply(body, usage_of(fields), _text(fields.get("model")), passed_headers(response.headers), dropped)

    async def stream(self, target: Target, request: ChatRequest) -> Stream:
        return await self._streamed(target, request, CHAT, self._quirks)

    async def complete_stream(self, target: Target, request: CompletionRequest) -> Stream:
        return await self._streamed(target, request, COMPLETIONS, _PLAIN)

    async def _whole(self, target: Target, request: AnyRequest, kind: str, quirks: Quirks) -> Reply:
        payload, dropped = _payload(target, request, quirks)
        response = await self._post(self._address(target, kind), payload)
        body = await self._http.read(response)
        fields = _completion(body)
        return Reply(body, usage_of(fields), _text(fields.get("model")), passed_headers(response.headers), dropped)

    async def _streamed(self, target: Target, request: AnyRequest, kind: str, quirks: Quirks) -> Stream:
        hide_usage = self._stream_usage and not request.wants_usage
        payload, dropped = _payload(target, request, quirks, ask_usage=self._stream_usage)
        response = await self._post(self._address(target, kind), payload)
        if not response.headers.get("content-type", _EVENT_STREAM).startswith(_EVENT_STREAM):
            whole = await self._http.read(response)
            raise in_one_piece(usage_of(_completion(whole)))  # unless it is an error, which tells more
        return OpenAIStream(self._http, response, hide_usage=hide_usage, dropped=dropped)

    async def check(self, target: Target) -> None:
        url, headers = self._address(target, MODELS), await self._credential.headers()
        await self._http.read(await self._accepted(await self._http.get(url, headers)))

    def speaks(self, protocol: Protocol) -> bool:
        return protocol == "responses" and self._responses_url is not None

    async def native(self, request: Native) -> Reply:
        response = await self._post(self._native_url(), request.body, request.headers)
        usage, model = read_response(body := await self._http.read(response))
        return Reply(body, usage, model, passed_headers(response.headers))

    async def native_stream(self, request: Native) -> Stream:
        response = await self._post(self._native_url(), request.body, request.headers)
        if not response.headers.get("content-type", _EVENT_STREAM).startswith(_EVENT_STREAM):
            raise in_one_piece(read_response(await self._http.read(response))[0])
        return NativeStream(self._http, response, passed_headers(response.headers), watch)

    async def aclose(self) -> None:
        await self._http.aclose()

    def _native_url(self) -> httpx.URL:
        assert self._responses_url is not None, "asked in a protocol that it does not speak"
        return self._responses_url

    async def _post(self, url: httpx.URL, body: bytes, given: Mapping[str, str] | None = None) -> httpx.Response:
        headers = {**(given or {}), **await self._credential.headers()}
        return await self._accepted(await self._http.post(url, headers, body))

    async def _accepted(self, response: httpx.Response) -> httpx.Response:
        """The response if it is a 200; else raises what its status and error mean."""
        if response.status_code == 200:
            return response
        error = await self._error(response)
        failure = from_status(response.status_code, error, retry_after(response.headers))
        if isinstance(failure, Unauthorized):
            self._credential.renew()
        raise failure

    async def _error(self, response: httpx.Response) -> Mapping[str, Any]:
        """The error of a refusal; empty when its body is cut, for the status says enough."""
        try:
            return error_object(self._credential.conceal(await self._http.read(response)))
        except BadReply:
            return {}


class OpenAIStream(Stream):
    """A stream of chunks. Each read from the provider becomes one `Chunk`, however many events it holds."""

    def __init__(
        self, http: Http, response: httpx.Response, *, hide_usage: bool, dropped: tuple[str, ...] = ()
    ) -> None:
        self.headers: Mapping[str, str] = passed_headers(response.headers)
        self.dropped = dropped
        self._pieces, self._response, self._hide_usage = http.pieces(response), response, hide_usage
        self._introduced: set[int] = set()  # indexes of the choices whose role was told
        self._begun: set[int] = set()  # of those that have said something
        self._finished: set[int] = set()
        self._done = False

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        splitter = EventSplitter()
        async for piece in self._pieces:
            chunks, failure = self._read(splitter.feed(piece))
            if chunks:
                yield _merged(chunks)
            if failure:
                raise failure
            if self._done:
                return
        chunks, failure = self._read(splitter.rest())
        if failure or self._unfinished():
            raise failure or BadReply("The provider's stream ended before the answer did.")
        if chunks or not self._done:
            yield _merged([*chunks, *([] if self._done else [Chunk(DONE)])])

    async def aclose(self) -> None:
        if self._done:
            await drain(self._pieces)
        await self._response.aclose()

    def _unfinished(self) -> bool:
        return not self._finished or bool(self._begun - self._finished)

    def _read(self, events: Iterable[ServerSentEvent]) -> tuple[list[Chunk], ProviderError | None]:
        """What the events say, and the failure that ended them: what came before it is still to be delivered."""
        chunks: list[Chunk] = []
        try:
            for event in events:
                if not self._done and (chunk := self._chunk(event)):
                    chunks.append(chunk)
        except ProviderError as failure:
            return chunks, failure
        return chunks, None

    def _chunk(self, event: ServerSentEvent) -> Chunk | None:
        """None for what the caller has no use for: a comment, or the usage that only we asked for."""
        if event.data is None:
            return None
        if event.data.strip() == b"[DONE]":
            if self._unfinished():  # callers stop reading at this word, so it must not reach them
                raise BadReply("The provider's stream ended before the answer did.")
            self._done = True
            return Chunk(DONE)
        fields = an_object(event.data)
        if error := fields.get("error"):
            raise from_error_in_reply(error if isinstance(error, dict) else {})
        choices = given if isinstance(given := fields.get("choices"), list) else []
        usage = usage_of(fields)
        if self._hide_usage and usage and not choices:
            return Chunk(b"", usage=usage)
        tokens, finished = self._follow(choices)
        raw = b"data: " + to_json(fields) + b"\n\n" if self._said_again(choices) else event.raw
        return Chunk(raw, tokens > 0 or finished, tokens, usage, _text(fields.get("model")))

    def _said_again(self, choices: list[Any]) -> bool:
        """Takes out roles that were told before: some services tell them in every event, and SDKs join the repeats."""
        again = False
        for choice in choices:
            delta, index = choice.get("delta"), choice.get("index", 0)
            if isinstance(delta, dict) and "role" in delta:
                if index in self._introduced:
                    del delta["role"]
                    again = True
                self._introduced.add(index)
        return again

    def _follow(self, choices: list[Any]) -> tuple[int, bool]:
        """How many choices said something in this event, and whether one of them finished."""
        tokens, finished = 0, False
        for choice in choices:
            if not isinstance(choice, dict):
                raise BadReply("The provider sent a choice that is not an object.")
            index = choice.get("index", 0)
            if not isinstance(index, int):
                raise BadReply("The provider sent a choice without a number.")
            if choice.get("text") or _says_something(choice.get("delta")):
                self._begun.add(index)
                tokens += 1
            if choice.get("finish_reason"):
                self._finished.add(index)
                finished = True
        return tokens, finished


def _merged(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    return Chunk(
        data=b"".join(chunk.data for chunk in chunks),
        meaningful=any(chunk.meaningful for chunk in chunks),
        tokens=sum(chunk.tokens for chunk in chunks),
        usage=usages[-1] if usages else None,
        model=next((chunk.model for chunk in chunks if chunk.model), None),
    )


_CONTENT = ("content", "tool_calls", "refusal", "reasoning_content", "reasoning", "function_call", "audio")


def _says_something(delta: Any) -> bool:
    return isinstance(delta, dict) and any(delta.get(name) for name in _CONTENT)


def _completion(body: bytes) -> dict[str, Any]:
    """A whole reply that holds an answer. Raises what an error inside it means, or BadReply."""
    fields = an_object(body)
    with counted(lambda: usage_of(fields)):
        choices = _unfailed(fields).get("choices")
        if not isinstance(choices, list) or not choices or not all(map(_is_answer, choices)):
            raise BadReply("The provider's reply holds no answer.")
    return fields


def _is_answer(choice: Any) -> bool:
    """A choice of a chat completion, or of a text completion."""
    return isinstance(choice, dict) and (isinstance(choice.get("message"), dict) or isinstance(choice.get("text"), str))


def _unfailed(fields: dict[str, Any]) -> dict[str, Any]:
    """A whole reply. Raises what an error inside it means."""
    if error := fields.get("error"):
        raise from_error_in_reply(error if isinstance(error, dict) else {})
    return fields


def _payload(
    target: Target, request: AnyRequest, quirks: Quirks, *, ask_usage: bool = False
) -> tuple[bytes, tuple[str, ...]]:
    """The request for a target, and the fields of it that the service has no place for."""
    if quirks == _PLAIN:
        return request.payload(target.model, ask_usage=ask_usage), ()
    fields, dropped = shaped(request.outgoing(target.model, ask_usage=ask_usage), quirks)
    return to_json(fields), dropped


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
