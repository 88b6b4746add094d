"""What a breaker remembers about one target, the settings it follows, and both as the JSON that instances share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from annotated_types import Ge, Interval

from routing.tally import EMPTY, Tally

Phase = Literal["closed", "open", "half_open"]
Action = Literal["isolate", "close"]
Heard = tuple[tuple[float, bool, str], ...]  # outcomes: epoch seconds, whether a success, the instance

MANUAL_LONGEST = 7 * 86_400.0  # seconds; longer than a week is a change of the routes file


@dataclass(frozen=True)
class BreakerSettings:
    """When a target is given up, for how long, and how it comes back."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    failure_threshold: Annotated[int, Interval(ge=1, le=100)] = 5
    failure_ratio: Annotated[float, Interval(gt=0, le=1)] = 0.5
    minimum_requests: Annotated[int, Interval(ge=1, le=100_000)] = 10
    window_seconds: Annotated[float, Interval(ge=1, le=3600)] = 60.0
    confirm_seconds: Annotated[float, Interval(ge=0, le=60)] = 1.2
    open_seconds: Annotated[float, Interval(ge=0.1, le=3600)] = 30.0
    max_open_seconds: Annotated[float, Interval(ge=0.1, le=86_400)] = 300.0
    open_jitter: Annotated[float, Interval(ge=0, le=1)] = 0.1
    long_open_seconds: Annotated[float, Interval(ge=0.1, le=86_400)] = 600.0
    healthy_seconds: Annotated[float, Interval(ge=0, le=86_400)] = 180.0
    half_open_successes: Annotated[int, Interval(ge=1, le=100)] = 1
    claim_lease_seconds: Annotated[float, Interval(ge=0.5, le=600)] = 5.0
    probe_lease_seconds: Annotated[float, Interval(ge=1, le=3600)] = 30.0
    probe_longest_seconds: Annotated[float, Interval(ge=1, le=86_400)] = 600.0
    stale_seconds: Annotated[float, Interval(ge=10, le=86_400)] = 600.0
    ramp_seconds: Annotated[float, Interval(ge=0, le=3600)] = 60.0
    parked_seconds: Annotated[float, Interval(ge=0, le=3600)] = 5.0
    max_parked_seconds: Annotated[float, Ge(0)] = 600.0
    manual_seconds: Annotated[float, Interval(gt=0, le=MANUAL_LONGEST)] = 3600.0

    def __post_init__(self) -> None:
        if self.max_open_seconds < self.open_seconds:
            raise ValueError(f"max_open_seconds {self.max_open_seconds} is below open_seconds {self.open_seconds}")


@dataclass(frozen=True, slots=True)
class Probe:
    """Who may ask a half-open target, and until when the others wait for that. `started` is None while only claimed."""

    holder: str
    until: float
    started: float | None = None


@dataclass(frozen=True, slots=True)
class Manual:
    """What an admin ordered, who, why, and until when."""

    action: Action
    by: str
    reason: str
    until: float


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The instances' reports together were alarming: since when, and the newest outcomes that they told since then."""

    since: float
    heard: Heard = ()


@dataclass(frozen=True, slots=True)
class Breaker:
    """Everything known about one target's health. Each change of phase and each order raises `generation`."""

    phase: Phase = "closed"
    generation: int = 0
    since: float = 0.0  # when the phase began; while closed, the start of the ramp
    open_until: float = 0.0
    streak: int = 0  # openings in a row without a healthy period between them
    successes: int = 0  # good probes so far in this half-open period
    parked_until: float = 0.0
    suspicion: Suspicion | None = None
    calm_until: float = 0.0  # cleared of that suspicion a moment ago
    probe: Probe | None = None
    manual: Manual | None = None
    last_error: str | None = None
    tally: Tally = EMPTY


def to_document(state: Breaker) -> dict[str, Any]:
    """The state as plain JSON values."""
    return asdict(state)


def from_document(document: Mapping[str, Any]) -> Breaker:
    """The state that `to_document` wrote. Raises ValueError for anything else: foreign, cut, or of another type."""
    try:
        return _breaker(document)
    except (KeyError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"not a breaker: {type(error).__name__} {error}") from error


def _breaker(document: Mapping[str, Any]) -> Breaker:
    error = document["last_error"]
    return Breaker(
        phase=_one_of(document["phase"], get_args(Phase)),
        generation=_whole(document["generation"]),
        since=_number(document["since"]),
        open_until=_number(document["open_until"]),
        streak=_whole(document["streak"]),
        successes=_whole(document["successes"]),
        parked_until=_number(document["parked_until"]),
        suspicion=_suspicion(document["suspicion"]),
        calm_until=_number(document["calm_until"]),
        probe=_probe(document["probe"]),
        manual=_manual(document["manual"]),
        last_error=None if error is None else _text(error),
        tally=_tally(document["tally"]),
    )


def _probe(value: Any) -> Probe | None:
    if value is None:
        return None
    started = value["started"]
    return Probe(_text(value["holder"]), _number(value["until"]), None if started is None else _number(started))


def _manual(value: Any) -> Manual | None:
    if value is None:
        return None
    action = _one_of(value["action"], get_args(Action))
    return Manual(action, _text(value["by"]), _text(value["reason"]), _number(value["until"]))


def _suspicion(value: Any) -> Suspicion | None:
    if value is None:
        return None
    heard = tuple((_number(at), _flag(ok), _text(holder)) for at, ok, holder in value["heard"])
    return Suspicion(_number(value["since"]), heard)


def _tally(value: Any) -> Tally:
    buckets = tuple((_whole(index), _whole(ok), _whole(faults)) for index, ok, faults in value["buckets"])
    return Tally(buckets, tuple(_number(at) for at in value["run"]), _number(value["last_ok"]))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not a flag")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _one_of(value: Any, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    return value
