"""The contract of a provider: a target and a request in; a reply, a stream, or one of the classes of `errors` out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from routing.errors import NotFound
from routing.requests import CompletionRequest, EmbeddingRequest
from routing.settings import SecretReference, Settings
from routing.types import Target, Usage
from routing.wire import ChatRequest

PASSED_HEADERS = (
    "openai-processing-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
)

# What a provider may speak beside chat completions: Anthropic's Messages and its count of tokens, OpenAI's Responses.
Protocol = Literal["messages", "count_tokens", "responses"]


class ProviderSettings(Settings):
    """What every `[providers.*]` table may say."""

    key: SecretReference | None = None


SHORTEST_KEY = 8  # characters; shorter ones are placeholders, and stand in texts by chance


class Credential(ABC):
    """Where a provider's key comes from. `headers` gives what authenticates one call."""

    @abstractmethod
    async def headers(self) -> Mapping[str, str]:
        """Raises `Unauthorized` when there is no key to be had."""

    def conceal(self, body: bytes) -> bytes:
        """A provider's error without our key, which some repeat in it."""
        return body

    @abstractmethod
    def renew(self) -> None:
        """The provider refused what `headers` gave: read the key anew before the next call."""


class NoCredential(Credential):
    """For servers that ask for no key."""

    async def headers(self) -> Mapping[str, str]:
        return {}

    def renew(self) -> None:
        """There is nothing to renew."""


class KeyCredential(Credential):
    """A key in a header. `read(fresh)` gives it, read anew when `fresh`."""

    def __init__(self, header: str, prefix: str, read: Callable[[bool], Awaitable[str]]) -> None:
        self._header, self._prefix, self._read = header, prefix, read
        self._fresh = False
        self._key = ""

    async def headers(self) -> Mapping[str, str]:
        fresh, self._fresh = self._fresh, False
        self._key = await self._read(fresh)
        return {self._header: self._prefix + self._key}

    def conceal(self, body: bytes) -> bytes:
        return body.replace(self._key.encode(), b"[key]") if len(self._key) >= SHORTEST_KEY else body

    def renew(self) -> None:
        self._fresh = True


@dataclass(frozen=True, slots=True)
class Native:
    """A request that a provider takes as it is. `body` is written for the target: it names the target's model."""

    protocol: Protocol
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)  # the caller's that belong to the protocol


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: the bytes to hand on, and what the router reads in them."""

    body: bytes
    usage: Usage | None = None
    model: str | None = None  # as the provider names what answered
    headers: Mapping[str, str] = field(default_factory=dict)  # of `PASSED_HEADERS`, and `x-upstream-request-id`
    dropped: tuple[str, ...] = ()  # request fields that the provider's protocol has no place for


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream as it came: one whole event or a few."""

    data: bytes
    meaningful: bool = False  # carries content, a tool call, a refusal, or a finish
    tokens: int = 0  # content deltas in it, about one token each
    usage: Usage | None = None
    model: str | None = None


class Stream(ABC):
    """An answer that is being written. Ends normally only after a finish; anything else raises `BadReply`."""

    headers: Mapping[str, str]
    dropped: tuple[str, ...] = ()

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    @abstractmethod
    async def aclose(self) -> None:
        """Cancels the provider's work when it has not ended; may be called twice."""


class Provider(ABC):
    """One account at one service. Shared by every request of the process, with one pool of connections."""

    name: str

    @abstractmethod
    async def chat(self, target: Target, request: ChatRequest) -> Reply:
        """Raises a class of `errors.ProviderError`, never anything else."""

    @abstractmethod
    async def stream(self, target: Target, request: ChatRequest) -> Stream:
        """Opens the stream: the provider has accepted the request. Raises as `chat` does."""

    checks_models: ClassVar[bool] = False  # whether `check` also tells whether the target's model is there

    @abstractmethod
    async def check(self, target: Target) -> None:
        """Whether the provider is there and takes our key, by a call that costs nothing. Raises as `chat` does."""

    async def embed(self, target: Target, request: EmbeddingRequest) -> Reply:
        """Vectors. Raises as `chat` does; for targets that support embeddings only."""
        raise NotFound("The provider has no embeddings.")

    async def complete(self, target: Target, request: CompletionRequest) -> Reply:
        """Text that goes on. Raises as `chat` does; for targets that support completions only."""
        raise NotFound("The provider has no text completions.")

    async def complete_stream(self, target: Target, request: CompletionRequest) -> Stream:
        """The same as a stream. Raises as `chat` does."""
        raise NotFound("The provider has no text completions.")

    def cannot_say(self, request: ChatRequest) -> str | None:
        """The first place in the request that the provider's protocol has no counterpart of; None: there is none."""
        return None

    def speaks(self, protocol: Protocol) -> bool:
        """Whether `native`, and `native_stream` where the protocol has streams, take requests in this protocol."""
        return False

    async def native(self, request: Native) -> Reply:
        """Hands the request on as it is, and the answer back as it came. Raises as `chat` does."""
        raise NotImplementedError

    async def native_stream(self, request: Native) -> Stream:
        """The same for a request that asks for a stream. Raises as `chat` does."""
        raise NotImplementedError

    @abstractmethod
    async def aclose(self) -> None:
        """Closes the pool."""
