"""Who used what: the lines that this instance adds up, and what the rows of the others say was spent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from operator import add, attrgetter
from typing import Any, NamedTuple

LINES_A_ROW = 100  # so that a row is a few kilobytes, and a busy line does not rewrite all the others
MOST_LINES = 1_000  # a day, beyond which target, task and route are not told apart any more
KEPT_DAYS = 32  # the longest month, and a day
FOLDED = "(other)"


class Of(NamedTuple):
    """What a line is about. A request that nobody answered has no target."""

    caller: str
    target: str
    task: str
    route: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What was used. `cached` requests asked no provider, `unpriced` ones cost nobody knows how much."""

    requests: int = 0
    failed: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    micro_usd: int = 0
    unpriced: int = 0
    saved_micro_usd: int = 0  # against the most expensive target that could have answered as well

    def __add__(self, other: Counts) -> Counts:
        return Counts(*map(add, _numbers(self), _numbers(other)))


_numbers = attrgetter(*(item.name for item in fields(Counts)))


class Line(NamedTuple):
    """A line of a day, as whoever asks for the usage gets to see it."""

    day: str
    of: Of
    counts: Counts


class Book:
    """This instance's own lines. They only grow, so that writing them twice changes nothing."""

    def __init__(self) -> None:
        self._days: dict[str, dict[Of, Counts]] = {}
        self._spent: dict[str, dict[str, int]] = {}  # day -> caller -> micro-USD
        self._places: dict[str, dict[Of, int]] = {}
        self._unwritten: set[tuple[str, int]] = set()  # day and row

    def add(self, day: str, of: Of, counts: Counts) -> None:
        lines, spent = self._day(day), self._spent[day]
        if of not in lines and len(lines) >= MOST_LINES:
            of = Of(of.caller, FOLDED, FOLDED, FOLDED)
        lines[of] = lines.get(of, Counts()) + counts
        spent[of.caller] = spent.get(of.caller, 0) + counts.micro_usd
        place = self._places[day].setdefault(of, len(self._places[day]))
        self._unwritten.add((day, place // LINES_A_ROW))

    @property
    def unwritten(self) -> frozenset[tuple[str, int]]:
        """The rows that have changed since they were written, as day and number."""
        return frozenset(self._unwritten)

    def written(self, rows: Iterable[tuple[str, int]]) -> None:
        """These rows are about to be written, as they are now."""
        self._unwritten.difference_update(rows)

    def unwrite(self, rows: Iterable[tuple[str, int]]) -> None:
        """That failed: they have to be written again."""
        self._unwritten.update(row for row in rows if row[0] in self._days)

    def row(self, day: str, number: int) -> dict[str, Any]:
        """The row as a document: its lines with absolute values."""
        lines = list(self._days[day].items())[number * LINES_A_ROW : (number + 1) * LINES_A_ROW]
        return {"lines": [[*of, *_numbers(counts)] for of, counts in lines]}

    def spent(self, day: str, caller: str) -> int:
        return self._spent.get(day, {}).get(caller, 0)

    def lines(self, day: str) -> Iterator[Line]:
        return (Line(day, of, counts) for of, counts in self._days.get(day, {}).items())

    def _day(self, day: str) -> dict[Of, Counts]:
        if day not in self._days:
            self._days[day], self._spent[day], self._places[day] = {}, {}, {}
            for old in sorted(self._days)[:-KEPT_DAYS]:
                del self._days[old], self._spent[old], self._places[old]
                self._unwritten = {row for row in self._unwritten if row[0] != old}
        return self._days[day]


class Others:
    """What the other instances' rows say: micro-USD by day, row and caller."""

    def __init__(self) -> None:
        self._days: dict[str, dict[str, Mapping[str, int]]] = {}
        self._sums: dict[str, dict[str, int]] = {}

    def take(self, day: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Rows as they are now, in place of what was read of them before."""
        known = self._days.setdefault(day, {})
        for row, document in rows.items():
            known[row] = _spent(lines_of(day, document))
        sums: dict[str, int] = defaultdict(int)
        for spent in known.values():
            for caller, micro_usd in spent.items():
                sums[caller] += micro_usd
        self._sums[day] = sums
        for old in sorted(self._days)[:-KEPT_DAYS]:
            del self._days[old], self._sums[old]

    def close(self, day: str) -> None:
        """The day is over: its sums are enough."""
        self._days[day] = {}

    def spent(self, day: str, caller: str) -> int:
        return self._sums.get(day, {}).get(caller, 0)


def lines_of(day: str, document: Mapping[str, Any]) -> Iterator[Line]:
    """The lines of a row; what cannot be read as one is left out."""
    listed = document.get("lines")
    for line in listed if isinstance(listed, list) else ():
        if isinstance(line, list) and len(line) >= 11 and all(isinstance(name, str) for name in line[:4]):
            numbers = line[4:12]  # 7 in rows of builds that did not count savings
            if all(type(number) is int and number >= 0 for number in numbers):
                yield Line(day, Of(*line[:4]), Counts(*numbers))


def _spent(lines: Iterable[Line]) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for line in lines:
        sums[line.of.caller] += line.counts.micro_usd
    return dict(sums)
