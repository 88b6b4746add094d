"""The nouns: frozen values that every ring may hand around, and nothing that acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, get_args

Role = Literal["user", "admin"]
Feature = Literal["tools", "vision", "audio", "json_schema", "embeddings", "completions"]
TaskKind = Literal[
    "general",
    "planning",
    "code_generation",
    "analysis",
    "intent_detection",
    "validation",
    "summarization",
    "translation",
    "classification",
    "long_form_generation",
]
TASK_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)


class Outcome(StrEnum):
    """What one call says about its target's health; the breaker's whole vocabulary."""

    OK = "ok"
    FAULT = "fault"  # counts towards the trip
    NEUTRAL = "neutral"  # says nothing: the caller left, the request was bad
    PARKED = "parked"  # a 429 with Retry-After: not ill, only busy until then
    LONG_OPEN = "long_open"  # bad credentials or exhausted quota: waiting seconds will not mend it


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `name` is the one in the routes file."""

    name: str
    role: Role = "user"
    groups: tuple[str, ...] = ()
    routes: frozenset[str] | None = None  # that may be asked for; None: all
    targets: frozenset[str] | None = None  # that may answer; None: all


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens."""

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    reasoning: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one provider. `model` is what the provider calls it; on Azure the deployment's name."""

    name: str
    provider: str
    model: str
    context: int | None = None  # tokens, input and output together
    max_output: int | None = None  # tokens
    supports: frozenset[Feature] = frozenset()
    price: Price | None = None
    quality: Mapping[str, float] = field(default_factory=dict)  # task kind or "default" -> 0..1
    weight: float | None = None  # share of the requests among targets of the same model; None: never shares


@dataclass(frozen=True, slots=True)
class Task:
    """What the request is for, how sure the router is (0..1), and what decided it."""

    kind: TaskKind = "general"
    confidence: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Speed:
    """What this instance has seen of a target lately."""

    first_token_seconds: float
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Shares:
    """What part (0..1) of a target's tokens has a price of its own, as this instance has seen lately."""

    cached: float = 0.0  # of the input, read from the provider's cache
    reasoning: float = 0.0  # of the output


@dataclass(frozen=True, slots=True)
class Ticket:
    """A breaker's leave for one call, dated by the generation that gave it."""

    target: str
    generation: int
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A breaker's no. `retry_at` is the earliest time (epoch seconds) to ask again."""

    target: str
    reason: Literal["open", "probing", "ramping", "parked", "isolated"]
    retry_at: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one request would cost at one target, in micro-USD."""

    expected: float
    input: float  # at worst, for what is sent
    per_output_token: float  # at worst, over all the answers asked for


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a strategy may judge by, frozen for one request."""

    task: Task
    input_tokens: int  # estimated
    output_tokens: int  # expected for the task
    output_limit: int | None = None  # the caller's own
    largest_input: int | None = None  # tokens that have to fit a context at once, where that is less than all of them
    needs: frozenset[Feature] = frozenset()
    speed: Mapping[str, Speed] = field(default_factory=dict)  # target -> Speed, where there is one
    shares: Mapping[str, Shares] = field(default_factory=dict)  # target -> Shares, where there are some
    breaker: Mapping[str, Refused] = field(default_factory=dict)  # target -> why it may not be asked now
    cost: Mapping[str, Estimate] = field(default_factory=dict)  # target -> Estimate, where the price is known
    minimum_quality: float = 0.0
    strict_quality: bool = False  # the caller's own minimum: who does not reach it is not asked at all
    max_cost: float | None = None  # micro-USD for the whole request in the worst case
    max_latency: float | None = None  # seconds to the first token
    only: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    explore: str | None = None  # the target whose turn it is to be tried anew
    draw: float = 0.0  # 0..1, drawn once a request: who of equals goes first


@dataclass(frozen=True, slots=True)
class Choice:
    """A target that may be asked, with the score (higher is better) that ranked it."""

    target: str
    score: float
    reason: str
    output_limit: int | None = None  # to be imposed, so that the request's ceiling holds
    cost: Estimate | None = None
    seconds: float | None = None  # expected, where the speed is known


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A target that may not be asked, and why."""

    target: str
    reason: str
    refused: Refused | None = None  # when the breaker is the reason


@dataclass(frozen=True, slots=True)
class Plan:
    """The order in which targets will be asked, and everything that led to it."""

    route: str
    strategy: str
    task: Task
    choices: tuple[Choice, ...]
    exclusions: tuple[Exclusion, ...] = ()
    note: str = ""  # what did not go as the routes file says


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to one target: `number` counts from 1 over the whole request."""

    target: str
    number: int
    outcome: Outcome
    seconds: float
    error: str | None = None  # the error class, never the provider's text
    usage: Usage | None = None  # what the provider counted all the same, where it said so
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them, or as estimated from what was sent and delivered."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    cache_write: int = 0  # of the input, written to the provider's cache
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """Money as integer micro-USD; `None` means unknown, which is never zero."""

    micro_usd: int | None
    price_version: str
    saved_micro_usd: int | None = None  # against the most expensive target that could have answered as well


@dataclass(frozen=True, slots=True)
class Decision:
    """What was chosen, why, what happened and what it cost. Holds no text of prompt or answer."""

    id: str
    at: float  # epoch seconds
    caller: str
    model: str  # as the request named it
    plan: Plan
    facts: Facts
    attempts: tuple[Attempt, ...] = ()
    target: str | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    from_cache: bool = False
    first_token_seconds: float | None = None
    seconds: float = 0.0
    error: str | None = None  # the class of what the caller got in place of an answer, or at the end of it
