"""Where a request stands in its caller's trace, and what is noted on its way, for telemetry to hear at its end.

The handler, the router and a stream's body run in different tasks. The router takes what is `current` once, in the
handler's task or a child of it, and hands it on by itself from there.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic_core import to_json

from routing import chance
from routing.types import Decision
from routing.wire import Asking

T = TypeVar("T")
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
CALLER_LEFT = "CallerLeft"
_LONGEST_STATE = 512  # characters of a tracestate that is handed on


@dataclass(frozen=True, slots=True)
class Trace:
    """W3C trace context (https://www.w3.org/TR/trace-context/). `span` is the request's own, `parent` its caller's."""

    id: str  # 32 hexadecimal digits
    span: str  # 16
    parent: str | None = None
    flags: str = "01"
    state: str = ""

    def headers(self, span: str) -> dict[str, str]:
        """What a call says whose own span is `span`."""
        told = {"traceparent": f"00-{self.id}-{span}-{self.flags}"}
        return {**told, "tracestate": self.state} if self.state else told


def begun(headers: Mapping[str, str]) -> Trace:
    """The caller's trace goes on here; a new one begins where it names none, or one that cannot be."""
    found = _TRACEPARENT.fullmatch(headers.get("traceparent", "").strip())
    if (
        found is None
        or found[1] == "ff"
        or (found[1] == "00" and found[5])
        or not (int(found[2], 16) and int(found[3], 16))
    ):
        return Trace(_hex(128), new_span())
    state = headers.get("tracestate", "")
    sound = len(state) <= _LONGEST_STATE and state.isascii() and state.isprintable()
    return Trace(found[2], new_span(), found[3], found[4], state if sound else "")


def new_span() -> str:
    return _hex(64)


def _hex(bits: int) -> str:
    return f"{chance.bits(bits) or 1:0{bits // 4}x}"


@dataclass(slots=True)
class Call:
    """One call to a target, noted while it goes on. Times in nanoseconds since the epoch."""

    target: str
    span: str
    started: int
    ended: int | None = None
    spoke: int | None = None  # when a stream said its first words
    error: str | None = None  # the error's class


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request's own settings is worth telling: small, because what is told may wait."""

    stream: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """The beginnings of a prompt and of its answer, where they are wanted at all. A stream's answer is not kept."""

    prompt: str
    answer: str | None


@dataclass(frozen=True, slots=True)
class Walked:
    """What became of a request that was routed, told once at its very end."""

    decision: Decision
    asked: Asked
    calls: Sequence[Call]
    model: str | None = None  # as the provider names what answered
    tokens: int = 0  # delivered in a stream
    overhead_seconds: float | None = None
    content: Content | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An HTTP request from its first line to its last byte, or (without status) a walk that outlived its request."""

    id: str
    path: str
    trace: Trace
    started: int
    ended: int
    status: int | None
    error: str | None
    walked: Walked | None


class Exchange:
    """One HTTP request under way; `tell` hears of it once, when its response and its walk are both over."""

    __slots__ = ("_error", "_over", "_started", "_status", "_tell", "_walked", "content", "id", "path", "trace")

    def __init__(
        self, request_id: str, path: str, trace: Trace, tell: Callable[[Told], None], content: int = 0
    ) -> None:
        self.id, self.path, self.trace, self._tell = request_id, path, trace, tell
        self.content = content  # characters of prompts and answers to keep; 0 as a rule
        self._started = time.time_ns()
        self._status: int | None = None
        self._error: str | None = None
        self._walked: Walked | None = None
        self._over = False

    def answered(self, status: int, *, error: str | None = None, streaming: bool = False) -> None:
        """The handler has its response; of a stream the walk's end is still to come."""
        self._status, self._error = status, error
        if not streaming or self._walked is not None:
            self._end()

    def settled(self, walked: Walked) -> None:
        """The walk is over. Of a whole answer the response is still to come, unless its caller has left."""
        if self._over:
            self._status = None  # others wait for the same answer
        self._walked = walked
        if self._status is not None or self._over:
            self._end()

    def _end(self) -> None:
        self._over = True
        told = self.id, self.path, self.trace, self._started, time.time_ns()
        self._tell(Told(*told, self._status, self._error, self._walked))


@dataclass(slots=True)
class Notes:
    """What is noted during one walk."""

    exchange: Exchange | None
    calls: list[Call] = field(default_factory=list)

    def begin(self, target: str) -> Call:
        """A call begins: what is sent on from here says so."""
        call = Call(target, new_span(), time.time_ns())
        self.calls.append(call)
        outgoing.set(self.exchange.trace.headers(call.span) if self.exchange else {})
        return call

    async def around(self, target: str, work: Awaitable[T]) -> T:
        """The work's result. A failed call is over here, a good one when it is settled."""
        call = self.begin(target)
        try:
            answer = await work
            call.spoke = time.time_ns()
            return answer
        except BaseException as error:
            left = isinstance(error, asyncio.CancelledError)
            call.ended, call.error = time.time_ns(), CALLER_LEFT if left else type(error).__name__
            raise

    def end(
        self,
        decision: Decision,
        request: Asking,
        *,
        model: str | None = None,
        tokens: int = 0,
        overhead_seconds: float | None = None,
        answer: bytes | None = None,
    ) -> None:
        """The walk is over, and with it the call that answered.

        The decision says what a failed call ended by: one that took too long was cancelled, and knows no more.
        """
        if self.calls and self.calls[-1].ended is None:
            self.calls[-1].ended, self.calls[-1].error = time.time_ns(), decision.error
        for call, attempt in zip(self.calls, decision.attempts, strict=False):
            call.error = attempt.error
        if self.exchange:
            content = _content(request, answer, self.exchange.content) if self.exchange.content else None
            about = model, tokens, overhead_seconds, content
            self.exchange.settled(Walked(decision, _asked(request), self.calls, *about))


def _asked(request: Asking) -> Asked:
    given = request.outgoing("")  # the caller's own fields, of whatever type
    numbers = (given.get(name) for name in ("temperature", "top_p"))
    temperature, top_p = (float(number) if isinstance(number, int | float) else None for number in numbers)
    return Asked(bool(request.stream), request.output_limit, temperature, top_p)


def _content(request: Asking, answer: bytes | None, most: int) -> Content:
    prompt = to_json(getattr(request, request.text_at), fallback=str)[: 4 * most].decode(errors="ignore")
    return Content(prompt[:most], None if answer is None else answer[: 4 * most].decode(errors="ignore")[:most])


class GivenIds:
    """Ids that were given out when a request began, for the span that is recorded at its end."""

    def __init__(self) -> None:
        self.trace, self.span = "", ""

    def generate_trace_id(self) -> int:
        return int(self.trace or _hex(128), 16)

    def generate_span_id(self) -> int:
        span, self.span = self.span or new_span(), ""
        return int(span, 16)

    def is_trace_id_random(self) -> bool:
        return True


current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
outgoing: ContextVar[Mapping[str, str]] = ContextVar("outgoing", default={})  # noqa: B039 - nobody writes into it
