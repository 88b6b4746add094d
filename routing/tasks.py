"""Which of ten tasks a request is: a label when one is given, else a small linear model, and what decided it."""

from __future__ import annotations

from functools import cache

from routing.task_model import KINDS, TaskInput, judge, load
from routing.types import TASK_KINDS, Task, TaskKind

__all__ = ["DEFAULT_MIN", "TaskInput", "detect", "parse_label"]

DEFAULT_MIN = 0.7  # of requests from sources not trained on nine in ten are surer, and 97 % of these are right

_LABELS: dict[str, TaskKind] = {kind.replace("_", ""): kind for kind in TASK_KINDS}


def parse_label(text: str | None) -> TaskKind | None:
    """A task label as a caller writes it, `code_generation` or `CodeGeneration`; None when there is none.

    Raises ValueError naming the ten kinds when it is none of them.
    """
    if text is None or not text.strip():
        return None
    kind = _LABELS.get(text.strip().lower().replace("_", "").replace("-", "").replace(" ", ""))
    if kind is None:
        shown = text[:40].encode("ascii", "replace").decode()
        raise ValueError(f"no task {shown!r}; tasks are {', '.join(TASK_KINDS)}")
    return kind


def detect(parts: TaskInput, label: str | None = None, minimum: float = DEFAULT_MIN) -> Task:
    """The task of a request, with a confidence in 0..1 and the reason. `label` wins; ValueError if it is unknown.

    Below `minimum` the task is general, and the reason says what it would have been. Bounded time for any text.
    """
    labelled = parse_label(label)
    if labelled is not None:
        return Task(labelled, 1.0, "label given by the caller")
    if not parts.system.strip() and not any(text.strip() for _, text in parts.turns):
        return Task("general", 0.0, "no text to tell a task from")
    chances, weighed = judge(parts, load())
    best = max(range(KINDS), key=chances.__getitem__)
    kind, confidence = TASK_KINDS[best], min(round(chances[best], 3), 0.999)  # only a label is certain
    shown = list(dict.fromkeys(_say(name) for name in weighed.deciding(best, 6)))[:3]
    why = "; ".join(shown) or "no feature known"
    if confidence < minimum:
        return Task("general", confidence, f"uncertain: {kind} at {confidence:.2f} is below {minimum:.2f} ({why})")
    return Task(kind, confidence, why)


_WHERE = {"s": "system prompt", "t": "text given", "b": "earlier turn", "f": "asked for"}
_MEANS = {
    "SUM": "summarise",
    "TRANS": "translate",
    "CLASSIFY": "classify",
    "CATEGORY": "a category",
    "POLAR": "positive/negative",
    "INTENT": "intent",
    "WANT": "wants",
    "SPEAKER": "the user",
    "PLAN": "plan",
    "STEPS": "steps",
    "CODE": "code",
    "PROG": "a programming language",
    "IMPLEMENT": "implement",
    "WRITE": "write",
    "LONG": "a long text",
    "SHORTDOC": "a short text",
    "WORDS": "number of words",
    "LONGADJ": "detailed",
    "SHORTADJ": "short",
    "ANALYZE": "analyse",
    "EXTRACT": "extract",
    "EXPLAIN": "explain",
    "CAUSE": "causes",
    "DATA": "data",
    "CHECK": "check",
    "CORRECT": "correct",
    "YESNO": "yes or no",
    "FIX": "change",
    "REWRITE": "reword",
    "QWORD": "a question word",
    "ASKYN": "a yes/no question",
    "TELL": "tell",
    "TEXTREF": "the text",
    "INTO": "into",
    "LANG": "a language",
    "LANGUAGE": "language",
    "CHOICES": "choices",
    "JSON": "JSON",
    "ONLY": "only",
    "ANSWER": "answer",
    "SYSREF": "each message",
    "BOT": "you",
    "RECIPE": "days or budget",
}


@cache
def _say(name: str) -> str:
    """A feature in words: where it was seen, and the phrase, the meaning or the shape that it is."""
    mark, _, rest = name.partition(":")
    stem, star, start = name.partition("*")
    where = _WHERE.get(mark[:1], "request")
    if star and len(stem) == 1:
        return f"{_WHERE.get(stem, 'request')}: words in {_safe(start)}…"
    if mark == "x":
        concept, _, shape = rest.partition("@")
        return f"{where}: {_mean(concept)} ({_safe(shape)})"
    if mark.endswith(("c", "c1")):
        return f"{where}: {'first ' if mark[-1] == '1' else ''}{_mean(rest)}"
    if mark.endswith("m") or len(mark) > 1:
        return f"{where}: {_safe(rest.replace(':', ' '))}"
    return f'{where}: "{_safe(rest.strip("^ $"))}"'


def _mean(concepts: str) -> str:
    spaced = concepts.replace(">", " ").replace("~", " … ")
    return _safe(" ".join(_MEANS.get(concept, concept) for concept in spaced.split()))


def _safe(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:48]
