"""What instruction words mean: the concept list, and how words of spaced and unspaced scripts are looked up in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

REMEMBERED, LONGEST = 8_192, 24  # words, and characters of each: the same ones come again and again


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, so that it can be remembered by
class Words:
    """What instruction words mean: whole words, beginnings of words, and parts of unspaced scripts."""

    whole: Mapping[str, str]
    stems: Mapping[str, str]
    parts: Mapping[str, str]
    starts: frozenset[str]  # the first three letters of the stems, to dismiss most words at once


def parse_words(text: str) -> Words:
    """Read the concept list: `NAME: word stem* ...` a line; an entry's first line wins."""
    whole: dict[str, str] = {}
    stems: dict[str, str] = {}
    parts: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, entries = line.partition(":")
        if line.startswith("#") or not colon:
            continue
        for entry in entries.split():
            if unspaced(entry[0]):
                parts.setdefault(entry, name)
            elif entry.endswith("*"):
                stems.setdefault(entry[:-1], name)
            else:
                whole.setdefault(entry, name)
    return Words(whole, stems, parts, frozenset(stem[:3] for stem in stems))


def unspaced(letter: str) -> bool:
    """Whether the letter's script is written without (reliable) spaces: Han, kana, Hangul, Thai."""
    return "\u2e80" <= letter <= "\ud7ff" or "\u0e00" <= letter <= "\u0eff" or "\uf900" <= letter <= "\uffdc"


def meaning(word: str, words: Words) -> str | None:
    """The concept of a lower-case word of a spaced script, whole or by its longest known beginning or end."""
    return _remembered(word, words) if len(word) <= LONGEST else _meaning(word, words)


def _meaning(word: str, words: Words) -> str | None:
    found = words.whole.get(word)
    if found is None and word[:3] in words.starts:
        for length in range(min(len(word), 11), 2, -1):
            found = words.stems.get(word[:length])
            if found is not None:
                return found
    if found is None and len(word) > 9:  # of a compound the last part tells what it is: Praktikumsbericht
        for length in range(10, 4, -1):
            found = words.whole.get(word[-length:]) or words.stems.get(word[-length:])
            if found is not None:
                break
    return found


_remembered = lru_cache(REMEMBERED)(_meaning)


def parts(run: str, words: Words) -> list[str]:
    """The concepts in a run of an unspaced script, by the longest entry at each place."""
    found = []
    at = 0
    while at < len(run):
        for length in (5, 4, 3, 2, 1):
            concept = words.parts.get(run[at : at + length])
            if concept is not None:
                found.append(concept)
                at += length - 1
                break
        at += 1
    return found
