"""Answers that equal requests get again, kept in memory for a time; and which requests are equal."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha512
from typing import Any

from routing.types import Caller, Decision

MOST_BYTES = 64 * 1024 * 1024  # of all answers of this instance
LARGEST = 1024 * 1024  # bytes of one answer
# What says that an answer stopped short. Inside a text the quotes would be escaped, so that no text is taken for it.
_CUT_SHORT = re.compile(
    rb'"(?:finish_reason|stop_reason)"\s*:\s*"(?:length|max_tokens|content_filter|refusal|pause_turn'
    rb'|model_context_window_exceeded)"|"status"\s*:\s*"(?:incomplete|failed)"'
    rb'|"type"\s*:\s*"response\.incomplete"|(?:^|\n)data: \{"error"|"type"\s*:\s*"error"'
)
_TOOLS = ("tools", "functions", "mcp_servers")


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it was sent, in pieces where it was a stream, and how it came about."""

    pieces: tuple[bytes, ...]
    decision: Decision
    model: str | None
    dropped: tuple[str, ...]
    output_limit: int | None

    @property
    def size(self) -> int:
        return sum(len(piece) for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Terms:
    """What of a route's answers is kept, for how long, and how many."""

    seconds: float
    max_entries: int
    tools: bool = False
    max_temperature: float = 0.0
    shared: bool = False
    shared_timeout_ms: int = 0


class Cache:
    """Answers by route and key, the one that was not asked for longest leaving first. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float], most_bytes: int = MOST_BYTES) -> None:
        self._clock, self._most_bytes = clock, most_bytes
        self._kept: OrderedDict[tuple[str, str], tuple[float, Kept]] = OrderedDict()
        self._counts: dict[str, int] = {}
        self.bytes = 0

    def get(self, route: str, key: str) -> Kept | None:
        """The answer, if it is not too old."""
        until, kept = self._kept.get((route, key), (0.0, None))
        if kept is None:
            return None
        if until <= self._clock():
            self._remove((route, key))
            return None
        self._kept.move_to_end((route, key))
        return kept

    def put(self, route: str, key: str, kept: Kept, terms: Terms) -> bool:
        """Keeps an answer that is whole and not too large, in place of what was kept for the same."""
        if kept.size > LARGEST or not complete(kept.pieces):
            return False
        if (route, key) in self._kept:
            self._remove((route, key))
        while self._counts.get(route, 0) >= terms.max_entries:
            self._remove(next(place for place in self._kept if place[0] == route))
        self._kept[route, key] = self._clock() + terms.seconds, kept
        self._counts[route] = self._counts.get(route, 0) + 1
        self.bytes += kept.size
        while self.bytes > self._most_bytes:
            self._remove(next(iter(self._kept)))
        return True

    def __len__(self) -> int:
        return len(self._kept)

    def _remove(self, place: tuple[str, str]) -> None:
        _, kept = self._kept.pop(place)
        self._counts[place[0]] -= 1
        self.bytes -= kept.size


def complete(pieces: tuple[bytes, ...]) -> bool:
    """Whether the answer came to its own end: not cut by a limit, a filter or an error."""
    return bool(pieces) and _CUT_SHORT.search(b"".join(pieces)) is None


def cacheable(fields: Mapping[str, Any], terms: Terms) -> bool:
    """Whether an equal request may get the same answer: none that wants chance, and with tools only where allowed."""
    if not terms.tools and any(fields.get(name) for name in _TOOLS):
        return False
    temperature = fields.get("temperature")
    chance = isinstance(temperature, int | float) and temperature > terms.max_temperature
    return not chance and not fields.get("previous_response_id") and fields.get("store") is not True


def key_of(fields: Mapping[str, Any], caller: Caller, *also: str) -> str:
    """What equal requests have in common: all their fields, in whatever order, and who may share an answer.

    Its first half names what is kept, its second half is the key of what leaves the process; neither tells the other.
    Callers of the same groups share; one without a group shares with nobody. So do callers that may use other targets.
    """
    wanted = {name: value for name, value in fields.items() if value is not None and (name, value) != ("stream", False)}
    shared = sorted(caller.groups) or [caller.name, "alone"]
    allowed = None if caller.targets is None else sorted(caller.targets)
    text = json.dumps([wanted, shared, bool(caller.groups), allowed, *also], sort_keys=True, separators=(",", ":"))
    return sha512(text.encode()).hexdigest()
