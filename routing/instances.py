"""What the instances of the router tell each other about what they give out: their number, and who used how much."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from routing.limits import BLIND, NEWCOMER

MINUTE = 60.0  # seconds; what was used before that does not count any more
REMEMBERED = 3_600.0  # seconds for which a silent instance's last word is kept, to add to when it comes back


@dataclass(frozen=True, slots=True)
class Use:
    """What one instance gave out to one caller since it began; tokens and requests only count limits of a minute."""

    requests: float = 0.0
    tokens: float = 0.0
    streams: int = 0  # open now
    under_way: int = 0  # requests now
    reserved: float = 0.0  # micro-USD for these
    spent: float = 0.0  # micro-USD

    @property
    def committed(self) -> float:
        return self.spent + self.reserved


NOTHING = Use()


@dataclass(frozen=True, slots=True)
class Word:
    """What one instance said last."""

    at: float  # when, epoch seconds of the store's clock
    callers: Mapping[str, Use]
    levels: Mapping[str, tuple[float, float]]  # caller -> what it believed to be left of requests and tokens

    def document(self) -> dict[str, Any]:
        callers = {name: asdict(use) for name, use in self.callers.items()}
        return {"at": self.at, "callers": callers, "levels": {name: [*pair] for name, pair in self.levels.items()}}


@dataclass(frozen=True, slots=True)
class News:
    """What the others used since they were heard last, by caller."""

    used: Mapping[str, tuple[float, float]]  # requests and tokens
    levels: Mapping[str, tuple[float, float]]  # after a silence: the least that anybody believes to be left


class Instances:
    """This instance among the others. `cycle` is the longest time in seconds between two words of a living one."""

    def __init__(self, alone: bool) -> None:
        self._alone = alone
        self._words: dict[str, Word] = {}
        self._said: deque[tuple[float, Mapping[str, Use]]] = deque()
        self._heard: Mapping[str, Use] = {}
        self._fresh: frozenset[str] = frozenset()
        self._present_since = math.inf  # when our first word was out
        self.heard_at: float | None = None

    def size(self, now: float, cycle: float, *, cautious: bool = False) -> int:
        """How many share the limits; more than are known while this one knows nothing, or is not known.

        Who has heard of nobody may believe to be the only one, unless `cautious`: others may begin just now, too.
        """
        if self._alone:
            return 1
        known = len(self._fresh) + 1
        if self.heard_at is None:
            return max(known, BLIND if cautious else NEWCOMER)
        unknown = (cautious or bool(self._fresh)) and now - self._present_since < cycle
        return max(known, NEWCOMER) if unknown else known

    @property
    def blind(self) -> bool:
        """Nothing is known of the others, though there may be some."""
        return not self._alone and self.heard_at is None

    def known(self) -> int:
        """How many are believed to run, this one among them."""
        return len(self._fresh) + 1

    def unheard(self, caller: str, now: Use, at: float, cycle: float) -> Use:
        """What was given out that the others may not know of: all since the last word that is older than a cycle."""
        while self._said and self._said[0][0] <= at - cycle:
            self._heard = self._said.popleft()[1]
        known = self._heard.get(caller, NOTHING)
        return Use(
            requests=max(0.0, now.requests - known.requests),
            tokens=max(0.0, now.tokens - known.tokens),
            streams=max(0, now.streams - known.streams),
            spent=max(0.0, now.committed - known.committed),
        )

    def told(self, callers: Mapping[str, Use], at: float) -> None:
        """Our word is in the store."""
        self._said.append((at, callers))
        self._present_since = min(self._present_since, at)

    def silent(self) -> None:
        """We have stopped telling: the others will forget us."""
        self._present_since = math.inf
        self.heard_at = None

    def hear(self, words: Mapping[str, Word], now: float, longest: float) -> News:
        """Takes what the others said; who has said nothing for `longest` seconds is not there."""
        first = self.heard_at is None or now - self.heard_at > MINUTE
        living = {name: word for name, word in words.items() if now - word.at <= longest}
        used: dict[str, tuple[float, float]] = {}
        for name, word in words.items():
            if not first:
                _add(used, word, self._words.get(name))
            self._words[name] = word
        self._fresh = frozenset(living)
        self._words = {name: word for name, word in self._words.items() if now - word.at <= REMEMBERED}
        self.heard_at = now
        return News(used, _levels(living.values()) if first else {})

    def others(self, caller: str) -> Use:
        """What the living others have under way for a caller."""
        total = NOTHING
        for name in self._fresh:
            use = self._words[name].callers.get(caller, NOTHING)
            total = replace(total, streams=total.streams + use.streams, reserved=total.reserved + use.reserved)
        return total


def word_of(document: Mapping[str, Any]) -> Word | None:
    """What a document says; None when it is not one of ours."""
    try:
        callers = {str(name): _use(use) for name, use in _table(document, "callers").items()}
        levels = {str(name): (_number(pair[0]), _number(pair[1])) for name, pair in _table(document, "levels").items()}
        return Word(_number(document["at"]), callers, levels)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _use(fields: Mapping[str, Any]) -> Use:
    return Use(**{name: _number(fields[name]) for name in asdict(NOTHING)})


def _add(used: dict[str, tuple[float, float]], word: Word, before: Word | None) -> None:
    for caller, use in word.callers.items():
        old = before.callers.get(caller, NOTHING) if before else NOTHING
        if use.requests < old.requests:
            old = NOTHING  # another instance under an old name
        requests, tokens = used.get(caller, (0.0, 0.0))
        used[caller] = requests + use.requests - old.requests, tokens + use.tokens - old.tokens


def _levels(words: Iterable[Word]) -> dict[str, tuple[float, float]]:
    least: dict[str, tuple[float, float]] = {}
    for word in words:
        for caller, (requests, tokens) in word.levels.items():
            before = least.get(caller, (math.inf, math.inf))
            least[caller] = min(before[0], requests), min(before[1], tokens)
    return least


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document[name]
    if not isinstance(found, dict):
        raise TypeError(name)
    return found


def _number(value: Any) -> Any:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("not a number")
    return value
