"""What a stand-in's server and its dialects hand each other: the request as asked, the answer as bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from local.standin_behaviour import Behaviour, Fault


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `document` is None when the body is no JSON object; header names are in lower case."""

    number: int  # counts from 1 since the last reset
    standin: str
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)  # from the path, e.g. Azure's deployment
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    document: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece. `tokens` is how many the pace is counted for."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer as server-sent events, each encoded with its blank line; only `tokens` are paced."""

    opening: tuple[bytes, ...]
    tokens: tuple[bytes, ...]
    ending: tuple[bytes, ...]  # what tells a finished answer from a cut one
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Whole | Stream
Operation = Callable[[Asked, Behaviour], Answer]


class Refusal(Exception):
    """A request the provider answers with an error. `extra` joins the error object of the body."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = status, message, type, param, code
        self.headers, self.extra = dict(headers or {}), dict(extra or {})


class Dialect(Protocol):
    """The wire format of one kind of provider: pure, without network or state."""

    @property
    def kind(self) -> str: ...

    def operations(self) -> tuple[tuple[str, str, Operation], ...]:
        """(method, Starlette path, operation), the busiest first. An operation may raise Refusal."""
        ...

    def refuse(self, refusal: Refusal) -> Whole:
        """The refusal in this provider's shape."""
        ...

    def error_event(self, refusal: Refusal) -> bytes:
        """The refusal as it comes inside a stream that has begun."""
        ...

    def fault(self, fault: Fault) -> Refusal:
        """How this provider words a fault that is answered with an error."""
        ...

    def headers(self, asked: Asked) -> Mapping[str, str]:
        """What this provider sends with every answer."""
        ...


def decode(body: bytes | str) -> Any:
    """The JSON in `body`, None when there is none (NaN, which is no JSON, counts as none)."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def encode(document: object) -> bytes:
    """Compact JSON."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def sse(document: bytes) -> bytes:
    """One `data:` event."""
    return b"data: " + document + b"\n\n"
