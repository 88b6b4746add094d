"""The features of a request and the linear model that weighs them.

A request becomes a set of named features; each known name has one small integer weight per task kind. The names are
kept as they are, so that a decision can be explained and an unknown n-gram weighs nothing; hashed, it would collide.
"""

from __future__ import annotations

import gzip
import heapq
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise

from routing.task_text import Passage, read, read_sample, sample
from routing.task_words import Words, parse_words, unspaced
from routing.types import TASK_KINDS

KINDS = len(TASK_KINDS)
GATE = KINDS  # the column that says: this system prompt sets the task, the user turns are its material
COLUMNS = KINDS + 1
SYSTEM_KEEP = 320  # characters of a system prompt's instruction
SYSTEMS = 128  # system prompts that are remembered as read: an app sends the same one with every request
ZERO = 128  # weights are bytes around this


@dataclass(frozen=True, slots=True)
class TaskInput:
    """What of a request the task can be told from. `turns` are (role, text), oldest first, without system messages."""

    turns: tuple[tuple[str, str], ...]
    system: str = ""
    images: bool = False
    tools: bool = False
    max_tokens: int | None = None
    response_format: str | None = None  # "text", "json_object", "json_schema"


@dataclass(frozen=True, slots=True)
class Weighed:
    """The names the model knows, and `COLUMNS` bytes of weights for each, in the same order."""

    names: list[str]
    table: bytes

    def deciding(self, kind: int, count: int) -> list[str]:
        """The names that weigh most for a kind, heaviest first."""
        column = self.table[kind::COLUMNS]
        heavy = heapq.nlargest(count, range(len(column)), key=column.__getitem__)
        return [self.names[place] for place in heavy if column[place] > ZERO]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """`rows[name]` is where the weights of a feature begin in `weights`; `scale` turns byte sums into log odds."""

    words: Words
    rows: Mapping[str, int]
    weights: bytes
    scale: float
    bias: tuple[float, ...]
    temperature: float

    def weigh(self, names: Sequence[str]) -> Weighed:
        """The known names and the bytes of their weights."""
        rows, weights = self.rows, self.weights
        known = [name for name in names if name in rows]
        return Weighed(known, b"".join([weights[row : row + COLUMNS] for row in map(rows.__getitem__, known)]))

    def odds(self, weighed: Weighed) -> list[float]:
        """Log odds per column: summed weights, scaled to the number of known names."""
        count = len(weighed.names)
        shrink = self.scale / math.sqrt(count) if count else 0.0
        table, zero = weighed.table, ZERO * count
        return [(sum(table[column::COLUMNS]) - zero) * shrink + self.bias[column] for column in range(COLUMNS)]

    def chances(self, weighed: Weighed) -> list[float]:
        """The probability of each kind, in the order of `TASK_KINDS`."""
        odds = [each / self.temperature for each in self.odds(weighed)[:KINDS]]
        top = max(odds)
        raised = [math.exp(each - top) for each in odds]
        total = sum(raised)
        return [each / total for each in raised]

    def sets_task(self, system: Passage) -> float:
        """How likely (0..1) a system prompt sets a task for every user turn, rather than a manner or a role."""
        return 1 / (1 + math.exp(-self.odds(self.weigh(system_names(system)))[GATE]))


def concepts_text() -> str:
    """The concept list as shipped."""
    return resources.files(__package__).joinpath("data", "task_concepts.txt").read_text("utf-8")


@cache
def load() -> Model:
    """The shipped model, read at the first request."""
    packed = resources.files(__package__).joinpath("data", "task_weights.gz").read_bytes()
    header, _, rest = gzip.decompress(packed).partition(b"\n")
    about = json.loads(header)
    names = rest[: about["names"]].decode("utf-8").split("\n")
    rows = dict(zip(names, range(0, len(names) * COLUMNS, COLUMNS), strict=True))
    return Model(
        parse_words(concepts_text()),
        rows,
        rest[about["names"] :],
        about["scale"],
        tuple(about["bias"]),
        about["temperature"],
    )


@lru_cache(SYSTEMS)
def system_names(system: Passage) -> tuple[str, ...]:
    """The features of the system prompt alone, which decide whether it sets the task."""
    return tuple(dict.fromkeys(_passage("s", system)))


@lru_cache(SYSTEMS)
def _system(sampled: str, model: Model) -> tuple[Passage, float]:
    """A system prompt taken apart, and how likely it sets the task."""
    system = read_sample(sampled, model.words, SYSTEM_KEEP)
    return system, model.sets_task(system)


SURE = 0.1  # a system prompt nearer than this to 0 or 1 is read one way only


def judge(parts: TaskInput, model: Model) -> tuple[list[float], Weighed]:
    """The probability of each kind and the features weighed. A system prompt of unclear nature is read both ways."""
    passage = read(last_text(parts.turns), model.words)
    if not parts.system.strip():
        weighed = model.weigh(gather(parts, passage, None, False, model.words))
        return model.chances(weighed), weighed
    system, sets = _system(sample(parts.system), model)
    weighed = model.weigh(gather(parts, passage, system, sets > 0.5, model.words))
    chances = model.chances(weighed)
    if SURE < sets < 1 - SURE:
        other = model.chances(model.weigh(gather(parts, passage, system, sets <= 0.5, model.words)))
        share = max(sets, 1 - sets)
        chances = [share * one + (1 - share) * two for one, two in zip(chances, other, strict=True)]
    return chances, weighed


def gather(parts: TaskInput, passage: Passage, system: Passage | None, gated: bool, words: Words) -> list[str]:
    """The features, given whether the system prompt sets the task; apart so that training can set it."""
    found: list[str] = ["system:" + ("none" if system is None else "task" if gated else "manner")]
    if system is not None:
        found += system_names(system)
        if gated:
            found += _concepts("a", system.concepts)
    if gated:
        found += _passage("t", passage)
    else:
        found += _passage("u", passage) if passage.instructed else _material("r", passage)
        found += _concepts("a", passage.concepts) if passage.instructed else ()
        found += _crossed(passage)
        found += _before(parts.turns, passage, words)
    found += _asked(parts)
    return list(dict.fromkeys(found))


def last_text(turns: tuple[tuple[str, str], ...]) -> str:
    """The text of the last user turn, else of the last turn."""
    return next((text for role, text in reversed(turns) if role == "user"), turns[-1][1] if turns else "")


def _passage(mark: str, passage: Passage) -> list[str]:
    return _phrases(mark, passage.words) + _material(mark, passage)


def _material(mark: str, passage: Passage) -> list[str]:
    """Text without an instruction tells its meaning only roughly: its words do not vote."""
    return _concepts(mark, passage.concepts) + [f"{mark}m:{shape}" for shape in passage.shapes]


def _phrases(mark: str, words: tuple[str, ...]) -> list[str]:
    before = last = "^"
    found: list[str] = []
    for word in words:
        found.append(f"{mark}:{word}")
        if unspaced(word[0]) and len(word) > 1:
            found += _letters(mark, word[:80])
        else:
            if len(word) > 6:
                found.append(f"{mark}*{word[:5]}")
            found += (f"{mark}:{last} {word}", f"{mark}:{before} {last} {word}")
        before, last = last, word
    found.append(f"{mark}:{last} $")
    return found


def _letters(mark: str, run: str) -> list[str]:
    pairs = [f"{mark}:{run[at : at + 2]}" for at in range(len(run) - 1)]
    return pairs + [f"{mark}:{run[at : at + 3]}" for at in range(len(run) - 1)]


def _concepts(mark: str, concepts: tuple[str, ...]) -> list[str]:
    if not concepts:
        return [f"{mark}c:none"]
    lead = concepts[:9]
    return [
        f"{mark}c1:{concepts[0]}",
        f"{mark}c1:{' '.join(concepts[:2])}",
        f"{mark}c1:{' '.join(concepts[:3])}",
        *[f"{mark}c:{concept}" for concept in concepts],
        *[f"{mark}c:{first}>{second}" for first, second in pairwise(concepts)],
        *[f"{mark}c:{first}~{second}" for place, first in enumerate(lead) for second in lead[place + 2 :]],
    ]


def _crossed(passage: Passage) -> Iterator[str]:
    lead = passage.concepts[:3] or ("none",)
    for shape in passage.shapes:
        if not shape.startswith("label:"):
            for concept in lead:
                yield f"x:{concept}@{shape}"


def _before(turns: tuple[tuple[str, str], ...], passage: Passage, words: Words) -> Iterator[str]:
    """A short last turn may go on with the turn before: that turn's concepts, and the shape of the answer to it."""
    earlier = [text for role, text in turns if role == "user"][:-1]
    if not earlier:
        return
    yield "b:turns"
    if len(passage.words) > 14:
        return
    follows = "short" if len(passage.words) < 7 else "some"
    yield f"b:{follows}"
    before = read(earlier[-1][:1500], words, 160)
    yield from _concepts(f"b{follows[0]}", before.concepts[:8])
    answer = next((text for role, text in reversed(turns) if role == "assistant"), "")
    for shape in read(answer[:1500], words, 80).shapes:
        yield f"bam:{shape}"


def _asked(parts: TaskInput) -> Iterator[str]:
    if parts.images:
        yield "f:images"
    if parts.tools:
        yield "f:tools"
    if parts.response_format and parts.response_format != "text":
        yield "f:json"
    if parts.max_tokens is not None:
        yield "f:max:" + next((str(top) for top in (16, 64, 300, 1500) if parts.max_tokens <= top), "more")
