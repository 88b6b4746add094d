"""How a stand-in behaves: its pace, its keys and models, and the fault it shows, all readable from JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

FaultKind = Literal[
    "status",  # `status` with an error body
    "rate_limited",  # 429 with `retry_after` and `retry_after_ms` as given
    "insufficient_quota",  # 429 that waiting does not mend
    "unauthorized",  # 401
    "content_filter",  # 400, the prompt was blocked
    "context_length_exceeded",  # 400
    "hang",  # nothing, not even headers, for `seconds`
    "drop",  # connection reset before the headers
    "slow_first_token",  # headers and the empty chunks, then nothing for `seconds`
    "cut",  # connection closed without an end
    "reset",  # the same by TCP reset
    "stall",  # silence for `seconds`, then it carries on
    "malformed",  # one unreadable event, then it carries on
    "empty_stream",  # 200 and a clean end, no event
    "unfinished",  # clean end without finish_reason, usage and [DONE]
    "error_event",  # `data: {"error": ...}` inside a 200, then the end
    "invalid_json",  # 200 with half a document
    "empty_body",  # 200 with nothing in it
]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    `after` counts the SSE events sent first, also those without content (an OpenAI stream opens with one, an Azure
    stream with two), so 0 strikes in place of the first event and a number beyond the answer's end never strikes.
    An answer that is not streamed is struck half-way through its body. `seconds` None means until the caller leaves.
    """

    kind: FaultKind
    after: int = 0
    seconds: float | None = None
    status: int = 500
    retry_after: float | None = None  # seconds
    retry_after_ms: float | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Everything about a stand-in that can be changed while it runs. Times in seconds."""

    latency: float = 0.0  # before the headers
    first_token: float = 0.0  # from the headers to the first token
    tokens_per_second: float | None = None  # None: as fast as it goes
    tokens: int | None = None  # length of a text answer; None: as long as what it says
    cached_tokens: int = 0  # reported as read from the prompt cache
    reasoning_tokens: int = 0  # reported as thought before the answer
    models: tuple[str, ...] = ()  # deployments on Azure; empty: any name is served
    keys: tuple[str, ...] = ()  # empty: any key, but a key
    quirks: tuple[str, ...] = ()  # what it minds or overlooks in a request, in the words of standin_quirks
    fault: Fault | None = None


def parse_fault(document: object) -> Fault:
    """A fault from `{"kind": ..., ...}`. Raises ValueError naming the field."""
    given = _object(document, "fault")
    if given.get("kind") not in FAULT_KINDS:
        raise ValueError(f"fault.kind: one of {', '.join(FAULT_KINDS)}")
    return Fault(**_checked(given, _FAULT_FIELDS, "fault"))


def parse_queue(document: object) -> tuple[Fault | None, ...]:
    """A list of faults, one for each coming request; null is a request that goes well. Raises ValueError."""
    if not isinstance(document, list):
        raise ValueError("queue: a list of faults")
    return tuple(None if entry is None else parse_fault(entry) for entry in document)


def changed(behaviour: Behaviour, document: object) -> Behaviour:
    """`behaviour` with the fields that `document` names, a bare fault being its `fault`. Raises ValueError."""
    given = _object(document, "standin")
    if "kind" in given:
        given = {"fault": given}
    return replace(behaviour, **_checked(given, _BEHAVIOUR_FIELDS, "standin"))


def _object(document: object, where: str) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise ValueError(f"{where}: an object")
    return document


def _checked(given: Mapping[str, Any], readers: Mapping[str, Callable[[Any], Any]], where: str) -> dict[str, Any]:
    if unknown := sorted(set(given) - set(readers)):
        raise ValueError(f"{where}.{unknown[0]}: not known; there is {', '.join(readers)}")
    read = {}
    for name, value in given.items():
        try:
            read[name] = readers[name](value)
        except TypeError as error:
            raise ValueError(f"{where}.{name}: {error}") from None
    return read


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e8:
        raise TypeError("a number from 0 to 100000000")
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1_000_000:
        raise TypeError("a whole number from 0 to 1000000")
    return value


def _status(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 400 <= value <= 599:
        raise TypeError("a status from 400 to 599")
    return value


def _speed(value: object) -> float:
    if not (number := _number(value)):
        raise TypeError("more than 0; null for no limit")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError("a list of texts")
    return tuple(_text(entry) for entry in value)


def _or_null(reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else reader(value)


_FAULT_FIELDS: dict[str, Callable[[Any], Any]] = {
    "kind": _text,
    "after": _count,
    "seconds": _or_null(_number),
    "status": _status,
    "retry_after": _or_null(_number),
    "retry_after_ms": _or_null(_number),
    "code": _or_null(_text),
    "message": _or_null(_text),
}
_BEHAVIOUR_FIELDS: dict[str, Callable[[Any], Any]] = {
    "latency": _number,
    "first_token": _number,
    "tokens_per_second": _or_null(_speed),
    "tokens": _or_null(_count),
    "cached_tokens": _count,
    "reasoning_tokens": _count,
    "models": _texts,
    "keys": _texts,
    "quirks": _texts,
    "fault": _or_null(parse_fault),
}
assert [*_FAULT_FIELDS, *_BEHAVIOUR_FIELDS] == [f.name for kind in (Fault, Behaviour) for f in fields(kind)]
