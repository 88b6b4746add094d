"""What a chat completion says, whole or in pieces, for those who put it in other words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from routing.errors import BadReply

_ID_ELSEWHERE = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_ID = 64


@dataclass(frozen=True, slots=True)
class Fragment:
    """A tool call or a piece of one. Only a piece that begins a call need have an id and a name."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Said:
    """What the first choice of a completion says, or one chunk of it."""

    thought: str = ""
    text: str = ""
    refusal: str = ""
    calls: tuple[Fragment, ...] = ()
    signed: tuple[Any, ...] = ()  # thoughts as their provider signed them
    finish: str | None = None


@dataclass(slots=True)
class Call:
    """A tool call as far as it has come."""

    id: str
    name: str
    written: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.written)


class Calls:
    """Tool calls that come in pieces, by their index; some providers give every call the same one, but ids apart."""

    def __init__(self) -> None:
        self._at: dict[int, Call] = {}

    def take(self, fragment: Fragment) -> tuple[Call, bool]:
        """The call that the piece belongs to, and whether it is new. Raises BadReply for the rest of no call."""
        call = self._at.get(fragment.index)
        new = call is None or bool(fragment.id and fragment.name and _fit(fragment.id) != call.id)
        if call is None or new:
            if not fragment.name:
                raise BadReply("The provider goes on with a tool call that it never began.")
            call = self._at[fragment.index] = Call(_fit(fragment.id) or f"call_{fragment.index}", fragment.name)
        if fragment.arguments:
            call.written.append(fragment.arguments)
        return call, new


def said_in_whole(body: bytes) -> tuple[dict[str, Any], Said]:
    """A completion, and what it says. Raises BadReply."""
    try:
        completion = from_json(body)
        choice = completion["choices"][0]
        message = choice["message"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise BadReply("The provider's reply is no chat completion.") from None
    if not isinstance(message, dict):
        raise BadReply("The provider's reply holds no message.")
    return completion, said(choice, message)


def said_in_chunk(chunk: Mapping[str, Any]) -> Said | None:
    """What a chunk says; None when it has no choice, or another than the first."""
    choices = chunk.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or choice.get("index", 0) != 0:
        return None
    delta = choice.get("delta")
    return said(choice, delta if isinstance(delta, dict) else {})


def said(choice: Mapping[str, Any], message: Mapping[str, Any]) -> Said:
    """`message` is a whole one, or a delta."""
    signed, finish = message.get("thinking_blocks"), choice.get("finish_reason")
    return Said(
        thought=_text(message.get("reasoning_content") or message.get("reasoning")),
        text=_text(message.get("content")),
        refusal=_text(message.get("refusal")),
        calls=tuple(_fragments(message)),
        signed=tuple(signed) if isinstance(signed, list) else (),
        finish=finish if isinstance(finish, str) else None,
    )


def _fragments(message: Mapping[str, Any]) -> Iterator[Fragment]:
    calls = message.get("tool_calls")
    for place, call in enumerate(calls if isinstance(calls, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            index, arguments = call.get("index", place), function.get("arguments")
            yield Fragment(
                index if isinstance(index, int) else place,
                _text(call.get("id")),
                _text(function.get("name")),
                _text(arguments),
            )


def _text(value: Any) -> str:
    """A text, or the text of an array of parts."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, Mapping))
    return value if isinstance(value, str) else ""


def _fit(given: str) -> str:
    """An id with which a conversation can go on at every provider."""
    return _ID_ELSEWHERE.sub("_", given)[:_LONGEST_ID]
