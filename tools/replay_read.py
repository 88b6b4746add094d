"""Reads recorded decisions, a line each: of the whole decision only what a replay needs, checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, ClassVar, Literal

from annotated_types import Ge, Gt, Le
from pydantic import TypeAdapter, ValidationError

from routing.features import Features
from routing.types import Feature, Refused, Shares, Speed, Task, Usage
from routing.wire import path_of

LONGEST_LINE = 1_000_000  # bytes
_BOM = b"\xef\xbb\xbf"  # that some editors and shells put in front of a file
_Tokens = Annotated[int, Ge(0), Le(10**15)]  # and micro-USD: what is beyond is a mistake, and cannot be reckoned with
_Positive = Annotated[float, Gt(0)]
_Lot = Annotated[float, Ge(0)]


class _Checked:
    __pydantic_config__: ClassVar = {"allow_inf_nan": False}


@dataclass(frozen=True, slots=True)
class _Refusal(_Checked):
    reason: Literal["open", "probing", "ramping", "parked", "isolated"]


@dataclass(frozen=True, slots=True)
class _Facts(_Checked):
    input_tokens: _Tokens
    output_limit: Annotated[int, Ge(1)] | None = None
    needs: frozenset[Feature] = frozenset()
    largest_input: _Tokens | None = None
    speed: Mapping[str, Speed] = field(default_factory=dict)
    shares: Mapping[str, Shares] = field(default_factory=dict)
    breaker: Mapping[str, _Refusal] = field(default_factory=dict)
    minimum_quality: float = 0.0
    strict_quality: bool = False
    max_cost: _Positive | None = None
    max_latency: _Positive | None = None
    only: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    draw: _Lot = 0.0
    answers: Annotated[int, Ge(0)] = 1
    strategy: Literal["task", "cost", "speed"] | None = None
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class _Named:
    target: str


@dataclass(frozen=True, slots=True)
class _Plan(_Checked):
    task: Task
    choices: tuple[_Named, ...] = ()


@dataclass(frozen=True, slots=True)
class _Usage(_Checked):
    input: _Tokens
    output: _Tokens
    cached: _Tokens = 0
    reasoning: _Tokens = 0
    cache_write: _Tokens = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class _Cost(_Checked):
    micro_usd: _Tokens | None


@dataclass(frozen=True, slots=True)
class Recorded(_Checked):
    """One decision as `GET /v1/router/decisions?format=jsonl` gives it."""

    id: str
    caller: str
    model: str
    plan: _Plan
    facts: _Facts
    attempts: tuple[_Named, ...] = ()
    target: str | None = None
    usage: _Usage | None = None
    cost: _Cost | None = None
    from_cache: bool = False

    @property
    def features(self) -> Features:
        """What the request's plan depended on."""
        facts = self.facts
        return Features(
            input_tokens=facts.input_tokens,
            output_limit=facts.output_limit,
            answers=facts.answers,
            needs=facts.needs,
            largest_input=facts.largest_input,
            strategy=facts.strategy,
            max_cost=facts.max_cost,
            max_latency=facts.max_latency,
            min_quality=facts.minimum_quality if facts.strict_quality else None,
            priority=facts.priority,
            only=facts.only,
            deny=facts.deny,
        )

    @property
    def failed(self) -> frozenset[str]:
        """The targets that were asked and did not answer this request."""
        return frozenset(attempt.target for attempt in self.attempts) - {self.target}

    @property
    def used(self) -> Usage | None:
        """The tokens it took; None when nobody answered."""
        used = self.usage
        if used is None:
            return None
        return Usage(used.input, used.output, used.cached, used.reasoning, used.cache_write, used.estimated)

    def refused(self) -> Mapping[str, Refused]:
        """Who was not to be asked then. Until when does not matter any more."""
        return {name: Refused(name, why.reason, math.inf) for name, why in self.facts.breaker.items()}


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no decision, and why."""

    number: int
    reason: str


_decision = TypeAdapter(Recorded)


def decisions(path: Path) -> Iterator[Recorded | BadLine]:
    """Every line of the file in turn, blank ones left out. Holds one line at a time. Raises OSError."""
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                _skip(lines)
                yield BadLine(number, f"is longer than {LONGEST_LINE} bytes")
            elif line.strip():
                yield _parsed(line.removeprefix(_BOM) if number == 1 else line, number)


def _parsed(line: bytes, number: int) -> Recorded | BadLine:
    try:
        return _decision.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = path_of(first["loc"])
        return BadLine(number, f"{place}: {first['msg']}" if place else first["msg"])


def _skip(lines: BinaryIO) -> None:
    """To the end of the line."""
    while (piece := lines.readline(LONGEST_LINE)) and not piece.endswith(b"\n"):
        pass
