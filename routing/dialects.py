"""How callers speak: a request put to a provider, an answer put to the caller, in chat completions or otherwise.

A provider that speaks the caller's own protocol gets the request as it is and its answer goes back as it came. All
others are asked in chat completions, and both are translated. Which it is, is decided target by target.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from pydantic_core import from_json, to_json

from routing.completions import Said, said_in_chunk
from routing.errors import BadRequest, InvalidRequest, ProviderError, RouterError
from routing.providers.base import Chunk, Native, Protocol, Provider, Reply, Stream
from routing.providers.sse import EventSplitter, ServerSentEvent
from routing.types import Exclusion, Plan, Target, Usage
from routing.wire import Asking, ChatRequest

T = TypeVar("T")
_MESSAGE = re.compile(r"messages\[(\d{1,9})\]", re.ASCII)
_UNFIT = re.compile(r"[^A-Za-z0-9_.\[\]-]")
_LONGEST_NAME, _MOST_NAMES = 64, 32  # so that a header holds them


class Dialect:
    """Chat completions, which every provider is asked in. The others are written as a difference from it."""

    protocol: ClassVar[Protocol | None] = None
    keepalive: ClassVar[bytes] = b": keep-alive\n\n"

    async def chat(self, provider: Provider, target: Target, request: ChatRequest) -> Reply:
        """Raises a class of `errors.ProviderError`."""
        return await provider.chat(target, request)

    async def stream(self, provider: Provider, target: Target, request: ChatRequest) -> Stream:
        """Raises as `chat` does."""
        return await provider.stream(target, request)

    def native(self, provider: Provider) -> bool:
        """Whether the provider speaks this very protocol, beside chat completions."""
        return self.protocol is not None and provider.speaks(self.protocol)

    def identity(self, request: Asking) -> Mapping[str, Any]:
        """All that a caller said: requests with the same may get the same answer."""
        return request.fields

    def speakers(self, providers: Mapping[str, Provider]) -> frozenset[str]:
        """The targets that take a request as it is; each has its provider in `providers`."""
        return frozenset(name for name, provider in providers.items() if self.native(provider))

    def suited(self, plan: Plan, providers: Mapping[str, Provider], request: Asking) -> Plan:
        """The plan without targets whose protocol cannot say the request, as long as there are others."""
        if not isinstance(request, ChatRequest):
            return plan
        mute = {name: provider for name, provider in providers.items() if not self.native(provider)}
        places = {name: place for name, provider in mute.items() if (place := provider.cannot_say(request))}
        return _without(plan, places) if places else plan

    def error_body(self, error: RouterError, request_id: str) -> dict[str, Any]:
        """The error as this dialect's clients read it."""
        return error.body()

    def error_event(
        self, error: RouterError, request_id: str, *, delivered: int, stream: Stream | None = None
    ) -> bytes:
        """An error after the status was sent, as clients raise it; `delivered` counts the tokens before it."""
        body = {**error.body(), "request_id": request_id, "delivered_tokens": delivered}
        return b"data: " + to_json(body) + b"\n\n"


def _without(plan: Plan, places: Mapping[str, str]) -> Plan:
    """The plan without the targets in `places`, unless nobody were left: then their own refusal says more."""
    able = tuple(choice for choice in plan.choices if choice.target not in places)
    if not able and not any(excluded.refused for excluded in plan.exclusions):
        return plan
    out = [choice.target for choice in plan.choices if choice.target in places]
    mute = tuple(Exclusion(name, f"its protocol has no counterpart of {places[name]}") for name in out)
    return replace(plan, choices=able, exclusions=(*plan.exclusions, *mute))


CHAT = Dialect()


@dataclass(frozen=True, slots=True)
class Translated:
    """A request of another protocol in chat completions, and what that cannot say.

    `fields` leave out what is not translated, so that they serve to plan by even where nothing but the protocol itself
    will do: `beyond` is the place of the first such thing. `stored` is the place of what refers to something that one
    provider has stored. `dropped` are the names of what only nudges the answer, and is left out. `places` say where in
    the request each message of the translation comes from.
    """

    fields: dict[str, Any]
    beyond: str | None = None
    stored: str | None = None
    dropped: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(slots=True)
class Draft:
    """A translation in the making."""

    fields: dict[str, Any] = field(default_factory=dict)
    beyond: str | None = None
    stored: str | None = None
    dropped: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def cannot_say(self, path: str) -> None:
        self.beyond = self.beyond or path

    def finished(self) -> Translated:
        names = list(dict.fromkeys(_UNFIT.sub("?", name[:_LONGEST_NAME]) for name in self.dropped))
        told = names[:_MOST_NAMES] + (["..."] if len(names) > _MOST_NAMES else [])
        return Translated(self.fields, self.beyond, self.stored, tuple(told), tuple(self.places))


class Foreign(Dialect, ABC):
    """A protocol other than chat completions. One object a request. `fields` is the request as it came."""

    limit: ClassVar[str]  # what the protocol calls the most tokens of an answer
    name: ClassVar[str]  # of the protocol, for people
    names: ClassVar[Mapping[str, str]]  # fields of chat completions that the protocol calls otherwise

    def __init__(self, fields: Mapping[str, Any], translated: Translated, headers: Mapping[str, str]) -> None:
        self._fields, self._translated, self._headers = fields, translated, headers

    async def chat(self, provider: Provider, target: Target, request: ChatRequest) -> Reply:
        if self.native(provider):
            return await provider.native(self._as_it_is(target, request))
        reply = await provider.chat(target, request)
        return replace(reply, body=self.reply(reply), dropped=self._dropped(reply.dropped))

    async def stream(self, provider: Provider, target: Target, request: ChatRequest) -> Stream:
        if self.native(provider):
            return self.watched(await provider.native_stream(self._as_it_is(target, request)))
        source = await provider.stream(target, request)
        return TranslatedStream(source, self.translation(), self._dropped(source.dropped))

    def identity(self, request: Asking) -> Mapping[str, Any]:
        return {**self._fields, "headers": dict(self._headers)}

    async def located(self, work: Awaitable[T]) -> T:
        """The work's result. What is wrong with the request is told by its place in the request as it came."""
        try:
            return await work
        except (InvalidRequest, BadRequest) as error:
            told = error.body()["error"]
            if isinstance(place := told.get("param"), str) and (own := self._own(place)) != place:
                error.param, error.message = own, str(told.get("message")).replace(place, own, 1)
                if isinstance(error, BadRequest) and error.provider_body:
                    error.provider_body = {**error.provider_body, "param": own, "message": error.message}
            raise

    def suited(self, plan: Plan, providers: Mapping[str, Provider], request: Asking) -> Plan:
        """Raises InvalidRequest when the request rules out every target of the route."""
        plan, speakers = super().suited(plan, providers, request), self.speakers(providers)
        names = [choice.target for choice in plan.choices] + [excluded.target for excluded in plan.exclusions]
        if (stored := self._translated.stored) and (len(names) != 1 or names[0] not in speakers):
            why = f"refers to what one provider has stored; ask for one target that speaks {self.name}"
            raise InvalidRequest(f"{stored}: {why}.", param=stored, code="unsupported_parameter")
        beyond = self._translated.beyond
        if beyond is None:
            return plan
        if not speakers:
            why = f"no target of {plan.route!r} speaks {self.name}, and nothing else can say it"
            raise InvalidRequest(f"{beyond}: {why}.", param=beyond, code="unsupported_parameter")
        reason = f"{beyond} can only be said in {self.name}"
        mute = tuple(Exclusion(choice.target, reason) for choice in plan.choices if choice.target not in speakers)
        choices = tuple(choice for choice in plan.choices if choice.target in speakers)
        return replace(plan, choices=choices, exclusions=(*plan.exclusions, *mute))

    @abstractmethod
    def reply(self, reply: Reply) -> bytes:
        """A whole chat completion in this protocol. Raises BadReply."""

    @abstractmethod
    def translation(self) -> Translation:
        """The translator of one stream."""

    def watched(self, stream: Stream) -> Stream:
        """A stream in this very protocol, wrapped where a later error needs to know what it said."""
        return stream

    def untouched(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The request for a provider that speaks the protocol, without what only this router understands."""
        return {name: value for name, value in fields.items() if name != "router"}

    def _own(self, place: str) -> str:
        """The place in the request as it came of a place in its translation."""
        if (found := _MESSAGE.match(place)) and int(found[1]) < len(self._translated.places):
            return self._translated.places[int(found[1])]
        return self.names.get(re.split(r"[.\[]", place, maxsplit=1)[0], place)

    def _dropped(self, names: Iterable[str]) -> tuple[str, ...]:
        return (*self._translated.dropped, *(self._called(name) for name in names))

    def _called(self, name: str) -> str:
        """What the protocol calls a field of chat completions, or one inside it."""
        outer, dot, inner = name.partition(".")
        return self.names[outer] + dot + inner.removeprefix("json_schema.") if outer in self.names else name

    def _as_it_is(self, target: Target, request: ChatRequest) -> Native:
        assert self.protocol is not None
        limit = {} if request.output_limit is None else {self.limit: request.output_limit}
        body = to_json({**self.untouched(self._fields), "model": target.model, **limit})
        return Native(self.protocol, body, self._headers)


class Translation(ABC):
    """One answer on its way: pieces of a chat completion in, events of another protocol out."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.model: str | None = None

    @abstractmethod
    def begin(self, model: str) -> None:
        """The answer begins."""

    @abstractmethod
    def say(self, said: Said) -> None:
        """It goes on. Raises BadReply."""

    @abstractmethod
    def end(self, usage: Usage | None, tokens: int) -> None:
        """It is complete; `tokens` is about how many there were."""

    def read(self, events: Iterable[ServerSentEvent]) -> ProviderError | None:
        """Takes the chunks in these events; returns the failure that ended them: what came before it is written."""
        try:
            for event in events:
                if event.data is not None and event.data.strip() != b"[DONE]":
                    self._take(from_json(event.data))
        except ProviderError as failure:
            return failure
        return None

    def _take(self, chunk: Mapping[str, Any]) -> None:
        said = said_in_chunk(chunk)
        if said is None:
            return
        if self.model is None:
            self.model = str(chunk.get("model") or "")
            self.begin(self.model)
        self.say(said)

    def event(self, document: Mapping[str, Any]) -> None:
        """Writes one event, named for its type."""
        self.written.append(b"event: %s\ndata: %s\n\n" % (str(document["type"]).encode(), to_json(document)))

    def taken(self) -> bytes:
        """What was written since the last time."""
        data, self.written = b"".join(self.written), []
        return data


class TranslatedStream(Stream):
    """A stream of chat completion chunks, put in other words."""

    def __init__(self, source: Stream, translation: Translation, dropped: tuple[str, ...]) -> None:
        self.headers, self.dropped = source.headers, dropped
        self.translation = translation
        self._source = source

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        splitter, usage, tokens = EventSplitter(), None, 0
        async for chunk in self._source:
            usage, tokens = chunk.usage or usage, tokens + chunk.tokens
            failure = self.translation.read(splitter.feed(chunk.data))
            yield replace(chunk, data=self.translation.taken())
            if failure:
                raise failure
        self.translation.end(usage, tokens)
        yield Chunk(self.translation.taken())

    async def aclose(self) -> None:
        await self._source.aclose()
