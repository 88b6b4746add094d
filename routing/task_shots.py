"""How a prompt ends that shows examples or leaves a label open: what is to be filled in there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from routing.task_words import Words, meaning

TAIL = 1_500  # characters of the end that are looked at

_OPEN = re.compile(r"[ \t]*[#*>-]{0,3} ?([^:：]{1,40}?)[*]{0,2} ?[:：][*]{0,2}$")
_ARROWS = ("->", "=>", "→", "=")
_ARROWED = re.compile(r"^[^\n]{1,300}?(?:->|=>|→|=)[ \t]*(?:[A-Z]\w+:[ \t]*)?(\S[^\n]*)$", re.MULTILINE)
_LISTED = re.compile(r"^[^:：\n]{1,60}[:：] (\S[^\n]{0,40})$", re.MULTILINE)
_PAIR = re.compile(r"^\s*\W?(\w{2,12})\W? ?(?:->|→|=>|-|to|2|>) ?(\w{2,12})\b", re.IGNORECASE)
_CODES = frozenset(
    """
    en de fr es it pt nl pl ru ja jp zh cn ko ar hi tr sv cs fi da no uk he th vi id el ro hu
    """.split()  # noqa: SIM905 - a list would be a page long
)
_WORD = re.compile(r"[^\W\d_][\w'-]*")
_NAMED = re.compile(r"^[a-z]+(?:_[a-z]+)+$|^(?:[A-Z][a-z]+){2,}$")
_VERDICT = re.compile(
    r"^(?:true|false|yes|no|valid|invalid|correct|incorrect|supported|refuted|entailment|contradiction)\W?$",
    re.IGNORECASE,
)


def shots_of(text: str, words: Words) -> Iterator[str]:
    """`end:CONCEPT` for an open label at the end, `shots:...` for what the examples before it were answered with."""
    pair = _PAIR.match(text[:40])
    if pair is not None and {pair[1].lower(), pair[2].lower()} <= _CODES:
        yield "langpair"
    tail = text[-TAIL:].rstrip()
    label = _OPEN.match(tail, tail.rfind("\n") + 1)
    if label is not None:
        for word in _WORD.findall(label[1].lower())[:4]:
            concept = meaning(word, words)
            yield f"end:{concept or word[:12]}"
        answers = [*_behind(label[1], tail)] or _LISTED.findall(tail)
    elif tail.endswith(_ARROWS):
        answers = _ARROWED.findall(tail)
    else:
        return
    if answers:
        yield from _answered(answers, text)


def _behind(label: str, tail: str) -> Iterator[str]:
    """What stands behind the same label earlier."""
    for line in tail.split("\n"):
        bare = line.lstrip(" \t#*>-")
        if bare.startswith(label):
            head, colon, rest = bare[len(label) :].replace("：", ":", 1).partition(":")
            if colon and len(head) < 4 and rest.strip("* \t"):
                yield rest.strip("* \t")


def _answered(answers: list[str], text: str) -> Iterator[str]:
    yield "shots"
    words = max(len(each.split()) for each in answers)
    yield "shots:" + ("word" if words <= 1 else "few" if words <= 4 else "sentence")
    if len({each.lower() for each in answers}) < len(answers):
        yield "shots:repeated"
    if all(_NAMED.match(each) for each in answers):
        yield "shots:named"
    if all(_VERDICT.match(each) for each in answers):
        yield "shots:verdict"
    if not answers[0].isascii() and text[:80].isascii():
        yield "shots:foreign"
