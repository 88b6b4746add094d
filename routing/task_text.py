"""What of a message is instruction, and what is material it is about.

Only the instruction's words may vote on the task. Material (fenced, quoted, tagged, or simply long) is reduced to
its shape: code-like, table-like, dialogue, its script, its length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from routing.task_shape import CODE, LABEL, LOG, shapes_of

SAMPLE = 6_000  # characters looked at; of longer text the head, the tail and the last announced instruction
HEAD = 700
TAIL = 600
KEEP = 420  # characters of instruction kept
WHOLE = 300  # a text this short is taken as instruction as a whole

_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<([a-zA-Z_][\w-]{1,24})>(.{12,}?)</\1>", re.DOTALL)
_QUOTED = re.compile(
    r"\"([^\"\n]{2,})\"|“([^”]{2,})”|«([^»]{2,})»|「([^」]{2,})」|『([^』]{2,})』|'([^'\n]{12,})'(?!\w)"
)
_SENTENCE = re.compile(
    r"[^.!?。！？؟।:：\n]*(?:[.:](?=\S)[^.!?。！？؟।:：\n]*)*(?:[.!?。！？؟।:：]+[\"'”»」)\]]*|\n|\Z)"
)
_WORD = re.compile(r"[^\s!-&(-,./:-@\[-`{-~¡-¿。、，：；？！「」『』（）【】《》…“”‘’„«»–—•·|؟،।]+|[?？؟:：]")
_SPOKEN = re.compile(
    r"^(?!(?:Task|Question|Instructions?|Intent|Summary|Input|Output|TL;DR)\b)[^\W\d_][\w .'-]{0,24}[:：] ?\S.*$",
    re.MULTILINE,
)
_SYMBOLS = re.compile(r"[{}()\[\];=<>|\\_$#&*+]")
_ANNOUNCED = ("\ntask:", "\ninstruction", "\nquestion:", "\nyour task", "\nplease ")


@dataclass(frozen=True, slots=True)
class Words:
    """What instruction words mean: whole words, beginnings of words, and parts of unspaced scripts."""

    whole: Mapping[str, str]
    stems: Mapping[str, str]
    parts: Mapping[str, str]
    starts: frozenset[str]  # the first three letters of the stems, to dismiss most words at once


@dataclass(frozen=True, slots=True)
class Passage:
    """A message taken apart: instruction tokens (`words`), their concepts, and the shape of everything."""

    words: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    instructed: bool = False


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


def sample(text: str) -> str:
    """At most about `SAMPLE` characters: head, tail and the last announced instruction between them."""
    if len(text) <= SAMPLE:
        return text
    head, tail = text[: SAMPLE // 2], text[-SAMPLE // 2 + 400 :]
    window = text[-60_000 : -len(tail)].lower()
    at = max(window.rfind(cue) for cue in _ANNOUNCED)
    return f"{head}\n{window[at : at + 400]}\n{tail}" if at >= 0 else f"{head}\n{tail}"


def read(text: str, words: Words, keep: int = KEEP) -> Passage:
    """Take a message apart. Time is bounded by `SAMPLE`, whatever the text's length."""
    text = sample(text).strip()
    if not text:
        return Passage(shapes=("empty",))
    plain, shapes = _mask(text)
    chosen, instructed = _instruction(plain, words, keep)
    tokens, concepts = _tokens(chosen, words)
    shapes += shapes_of(text, plain, chosen, instructed)
    return Passage(tokens, concepts, tuple(dict.fromkeys(shapes)), instructed)


def _mask(text: str) -> tuple[str, list[str]]:
    shapes: list[str] = []

    def fence(match: re.Match[str]) -> str:
        shapes.append("fence")
        shapes.append("fence:code" if CODE.search(match[2]) or match[1] else "fence:text")
        return "\n␀block \n"

    def tagged(match: re.Match[str]) -> str:
        shapes.append("tagged")
        return "\n␀block \n"

    def quoted(match: re.Match[str]) -> str:
        inner = match[match.lastindex or 0]
        if match[6] and match.start() and match.string[match.start() - 1].isalnum():
            return match[0]
        if len(inner) <= 24 and " " not in inner and not unspaced(inner[0]):
            return match[0]
        shapes.append("quote:long" if len(inner) > 80 else "quote")
        return " ␀quote "

    if "```" in text:
        text = _FENCE.sub(fence, text)
    if "</" in text:
        text = _TAGGED.sub(tagged, text)
    if len(text) <= 2 * (HEAD + TAIL):
        return _QUOTED.sub(quoted, text), shapes
    return _QUOTED.sub(quoted, text[: 2 * HEAD]) + "\n" + _QUOTED.sub(quoted, text[-2 * TAIL :]), shapes


def _sentences(text: str) -> list[str]:
    return [found for found in (match.strip() for match in _SENTENCE.findall(text)) if len(found) > 1]


def _instruction(text: str, words: Words, keep: int) -> tuple[str, bool]:
    """The sentences that tell what to do, or, when none does, the beginning and the end."""
    candidates = _candidates(text)
    if not candidates:
        return text[:keep], False
    last = len(candidates) - 1
    scored = []
    told = 0.0  # once an order has ended in a colon, what follows is more likely its object
    for place, each in enumerate(candidates):
        score = _directs(each, words) + (place == 0) + 0.7 * (place == last)
        if place in (0, last) and len(text) > 400 and _alone(each, text):
            score += 1.2
        scored.append(score - told)
        if score > 2.4 and each[-1] in ":：":
            told = 1.2
    best = max(scored)
    if not told and len(text) <= WHOLE:
        return " ".join(candidates), best >= 1.9
    if best < 1.9:
        return f"{candidates[0][:200]} {candidates[-1][-160:] if last else ''}", False
    least = max(1.9, best - 1.8)
    picked = [place for place, score in enumerate(scored) if score >= least]
    return " ".join(candidates[place][:keep] for place in picked)[: keep + keep // 4], True


def _alone(sentence: str, text: str) -> bool:
    """Whether the sentence is a short line of its own, set apart from a long rest."""
    at = text.find(sentence)
    before, after = text[max(0, at - 1) : at], text[at + len(sentence) : at + len(sentence) + 1]
    return len(sentence) < 220 and before in ("", "\n") and after in ("", "\n")


def _candidates(text: str) -> list[str]:
    if len(text) <= HEAD + TAIL:
        found = _sentences(_undialogued(text))
    else:
        found = [*_sentences(_undialogued(text[:HEAD]))[:5], *_sentences(_undialogued(text[-TAIL:]))[-5:]]
    if len(found) > 12:
        found = found[:7] + found[-5:]
    prose = [each for each in found if not _is_code(each)]
    return prose if found and (len(prose) * 3 >= len(found) or not _is_code(found[0])) else []


def _undialogued(text: str) -> str:
    """Without the lines of a dialogue, if it is one: what speakers ask each other is not asked of the model."""
    if text.count("\n") < 2 or len(_SPOKEN.findall(text)) < 3:
        return text
    return _SPOKEN.sub("", text)


def _is_code(line: str) -> bool:
    """Code, data or markup rather than a sentence."""
    return (
        CODE.match(line) is not None
        or LOG.match(line) is not None
        or len(_SYMBOLS.findall(line[:120])) * 9 > min(len(line), 120)
    )


_STRONG = frozenset(
    [
        "SUM",
        "TRANS",
        "CLASSIFY",
        "INTENT",
        "PLAN",
        "IMPLEMENT",
        "WRITE",
        "ANALYZE",
        "EXTRACT",
        "EXPLAIN",
        "CHECK",
        "FIX",
        "REWRITE",
        "TELL",
        "CHOICES",
        "ANSWER",
    ]
)
_ASKING = frozenset(("QWORD", "ASKYN"))
_TELLING = frozenset(
    [
        "CORRECT",
        "CATEGORY",
        "INTENT",
        "CHOICES",
        "WORDS",
        "LANG",
        "SHORTADJ",
        "LONG",
        "CODE",
        "TEXTREF",
        "CAUSE",
        "STEPS",
    ]
)
_POLITE = frozenset(
    [
        "please",
        "kindly",
        "pls",
        "bitte",
        "s'il",
        "por",
        "favor",
        "proszę",
        "lütfen",
        "пожалуйста",
        "请",
        "請",
        "can",
        "could",
        "would",
        "help",
        "task",
        "goal",
    ]
)


def _directs(sentence: str, words: Words) -> float:
    """How much a sentence reads like an order or a question about the rest."""
    if unspaced(sentence[0]):
        opening: list[str] = []
        meanings: list[str | None] = [*_parts(sentence[:80], words)]
    else:
        opening = _WORD.findall(sentence[:110].lower())[:10]
        if len(sentence) > 110 and sentence[-1] == "?":
            opening = opening[:5] + _WORD.findall(sentence[-70:-1].lower())[1:]
        meanings = [meaning(word, words) for word in opening]
    score = 1.8 * any(each in _STRONG for each in meanings[:4]) or 0.7 * any(each in _STRONG for each in meanings[4:])
    score += min(1.0, 0.4 * len(_TELLING.intersection(meanings)))
    score += 0.8 * any(word in _POLITE for word in opening[:3])
    if sentence[-1] in "?？؟":
        score += 0.9 + 0.4 * any(each in _ASKING for each in meanings[:3])
    score += 0.7 * (sentence[-1] in ":：")
    score -= 0.8 * (len(sentence) > 260 and score < 2) + 0.6 * (sentence[0] in '|<>"')
    return score - 0.8 * (LABEL.match(sentence) is not None and (not meanings or not meanings[0]))


def meaning(word: str, words: Words) -> str | None:
    """The concept of a lower-case word of a spaced script, whole or by its longest known beginning."""
    found = words.whole.get(word)
    if found is None and word[:3] in words.starts:
        for length in range(min(len(word), 11), 2, -1):
            found = words.stems.get(word[:length])
            if found is not None:
                break
    return found


def _parts(run: str, words: Words) -> list[str]:
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


def _tokens(text: str, words: Words) -> tuple[tuple[str, ...], tuple[str, ...]]:
    tokens: list[str] = []
    concepts: list[str] = []
    for word in _WORD.findall(text.lower())[:80]:
        if unspaced(word[0]) and word[0] not in "？：":
            tokens.append(word)
            concepts += _parts(word[:120], words)
            continue
        concept = meaning(word, words)
        if concept == "LANG" and tokens and tokens[-1] in ("plain", "simple", "everyday"):
            concept = "EXPLAIN"
            tokens.append("words")
        elif concept in ("LANG", "PROG"):
            tokens.append(f"<{concept}>")
        elif word.isdigit():
            tokens.append("<0>" if len(word) < 3 else "<000>")
        else:
            tokens.append(word[:18])
        if concept:
            concepts.append(concept)
    return tuple(tokens), tuple(concepts[:30])
