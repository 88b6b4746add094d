"""What of a message is instruction, and what is material it is about.

Only the instruction's words may vote on the task. Material (fenced, quoted, tagged, or simply long) is reduced to
its shape: code-like, table-like, dialogue, its script, its length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SAMPLE = 6_000  # characters looked at; of longer text the head, the tail and the last announced instruction
HEAD = 700
TAIL = 600
KEEP = 420  # characters of instruction kept
WHOLE = 300  # a text this short is taken as instruction as a whole

_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<([a-zA-Z_][\w-]{1,24})>(.{12,}?)</\1>", re.DOTALL)
_QUOTED = re.compile(r"\"([^\"\n]{2,})\"|“([^”]{2,})”|«([^»]{2,})»|「([^」]{2,})」|『([^』]{2,})』|'([^'\n]{12,})'(?!\w)")
_SENTENCE = re.compile(
    r"[^.!?。！？؟।:：\n]*(?:[.:](?=\S)[^.!?。！？؟।:：\n]*)*(?:[.!?。！？؟।:：]+[\"'”»」)\]]*|\n|\Z)"
)
_WORD = re.compile(r"[^\s!-&(-,./:-@\[-`{-~¡-¿。、，：；？！「」『』（）【】《》…“”‘’„«»–—•·|؟،।]+|[?？؟:：]")
_LABEL = re.compile(r"^[\W_]{0,3}([^\W\d_][\w /'-]{1,28}?)[*_]{0,2}\s?[:：](?=\s|$|\S)")
_CODE = re.compile(
    r"^[ \t]*(?:def |class \w+|import \w|from [\w.]+ import|#include|public |private |func |fn |function\b|const |let |var "
    r"|SELECT\s|INSERT INTO|UPDATE \w+ SET|CREATE TABLE|WITH \w+ AS|return\b|if ?\(|for ?\(|while ?\(|\$ |<\w+[ >]|}|@\w+)",
    re.MULTILINE,
)
_LOG = re.compile(
    r"^\W?(?:\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|\w{3} \d\d? \d\d:\d\d)|^(?:ERROR|WARN|INFO|DEBUG)\b", re.MULTILINE
)
_DIALOGUE = re.compile(r"^[^\W\d_][\w .'-]{0,24}[:：] ?\S", re.MULTILINE)
_SPOKEN = re.compile(r"^(?!(?:Task|Question|Instructions?|Intent|Summary|Input|Output|TL;DR)\b)[^\W\d_][\w .'-]{0,24}[:：] ?\S.*$", re.MULTILINE)
_LIST = re.compile(r"^[ \t]*(?:[-*•]|\(?\d{1,2}[.)]|\(?[a-hA-H][.)])\s", re.MULTILINE)
_STUB = re.compile(r"your code here|\bTODO\b|\"\"\"\s*\Z|'''\s*\Z|\{\s*\Z|:\s*\Z|\bpass\s*\Z", re.IGNORECASE)
_KEYS = re.compile(r"\"([A-Za-z_]\w{1,20})\"\s*:")
_SYMBOLS = re.compile(r"[{}()\[\];=<>|\\_$#&*+]")
_CHOICES = re.compile(
    r"[(\[{:：][ ]?[\w'\" /-]{1,40}(?:[,;/|、，][ ]?[\w'\" /-]{1,40}){1,40}"
    r"|[\w-]{1,30}, [\w -]{1,30},? (?:or|oder|ou|o|of|lub|veya|или) [\w-]{1,30}|还是|或者|または|それとも"
)
_ASKED = re.compile(
    r"\d{1,6}(?:[.,]\d{3})?[ -]?"
    r"(?:words?\b|wörter|worten|mots\b|palabras|palavras|parole\b|woorden|słów|kelime|слов|كلمة|शब्द|字|文字|자\b|단어|pages?\b|seiten"
    r"|páginas|pagine|页|ページ)",
    re.IGNORECASE,
)
_ASKED_HAN = re.compile(r"([一二三四五六七八九十两百千万]{1,4})字")
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
    shapes = (*shapes, *_shapes(text, plain, chosen, instructed))
    return Passage(tokens, concepts, tuple(dict.fromkeys(shapes)), instructed)


def _mask(text: str) -> tuple[str, list[str]]:
    shapes: list[str] = []

    def fence(match: re.Match[str]) -> str:
        shapes.append("fence")
        shapes.append("fence:code" if _CODE.search(match[2]) or match[1] else "fence:text")
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
        found = [*_sentences(_undialogued(text[:HEAD]))[:6], *_sentences(_undialogued(text[-TAIL:]))[-5:]]
    if len(found) > 14:
        found = found[:8] + found[-6:]
    prose = [each for each in found if not _is_code(each)]
    return prose if found and (len(prose) * 3 >= len(found) or not _is_code(found[0])) else []


def _undialogued(text: str) -> str:
    """Without the lines of a dialogue, if it is one: what speakers ask each other is not asked of the model."""
    if text.count("\n") < 2 or len(_SPOKEN.findall(text)) < 3:
        return text
    return _SPOKEN.sub("", text)


def _is_code(line: str) -> bool:
    """Code, data or markup rather than a sentence."""
    return _CODE.match(line) is not None or len(_SYMBOLS.findall(line[:120])) * 9 > min(len(line), 120)


_STRONG = frozenset(
    ["SUM", "TRANS", "CLASSIFY", "INTENT", "PLAN", "IMPLEMENT", "WRITE", "ANALYZE", "EXTRACT", "EXPLAIN", "CHECK", "FIX", "REWRITE", "TELL", "CHOICES", "ANSWER"]
)
_ASKING = frozenset(("QWORD", "ASKYN"))
_TELLING = frozenset(["CORRECT", "CATEGORY", "INTENT", "CHOICES", "WORDS", "LANG", "SHORTADJ", "LONG", "CODE", "TEXTREF", "CAUSE", "STEPS"])
_POLITE = frozenset(["please", "kindly", "pls", "bitte", "s'il", "por", "favor", "proszę", "lütfen", "пожалуйста", "请", "請", "can", "could", "would", "help", "task", "goal"])


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
    return score - 0.8 * (_LABEL.match(sentence) is not None and (not meanings or not meanings[0]))


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


def _shapes(text: str, plain: str, chosen: str, instructed: bool) -> list[str]:
    size = len(text)
    shapes = ["length:" + next((name for name, top in _LENGTHS if size <= top), "huge")]
    rest = size - len(chosen)
    shapes.append("rest:" + next((name for name, top in _LENGTHS if rest <= top), "huge"))
    shapes.append("instructed" if instructed else "raw")
    if _CODE.search(text):
        shapes.append("code")
        shapes.append("code:first" if _CODE.match(text.lstrip("`\n")[:200]) else "code:later")
        if _STUB.search(text[-160:]):
            shapes.append("code:stub")
    if _LOG.search(text):
        shapes.append("log")
    if text.count("|") > 8 or text.count("\t") > 8 or text.count(",") * 8 > size:
        shapes.append("table")
    if text[0] in "{[" and text[-1] in "}]":
        shapes.append("json")
    if text.count("\n") > 1 and len(_DIALOGUE.findall(text[:2000])) > 2:
        shapes.append("dialogue")
    if len(_LIST.findall(text[:3000])) > 2:
        shapes.append("list")
    if plain.strip() == "␀block":
        shapes.append("only:block")
    if _CHOICES.search(chosen):
        shapes.append("choices")
    if text.count("_") > 2:
        shapes.append("snake")
    shapes += _asked_length(text)
    if plain.endswith(("?", "？", "؟")):
        shapes.append("ends:?")
    elif plain.endswith((":", "：")):
        shapes.append("ends::")
    shapes += _scripts(chosen, text)
    labels = [label.lower()[:14] for label in _labels(text)]
    shapes += [f"label:{label}" for label in labels]
    if len(labels) > 1:
        shapes.append("label:" + "+".join(labels[:2]))
    return shapes


_LENGTHS = (("bit", 30), ("short", 90), ("some", 260), ("page", 900), ("long", 2600))


def _asked_length(text: str) -> list[str]:
    found = _ASKED.search(text[:1200]) or _ASKED.search(text[-500:])
    if found is not None:
        amount = int("".join(letter for letter in found[0][:12] if letter.isdecimal())[:6])
        return ["asked:long" if amount >= (3 if found[0].lower().endswith(_PAGES) else 300) else "asked:short"]
    if "字" in text and (found := _ASKED_HAN.search(text[:1200])):
        return ["asked:long" if set(found[1]) & set("百千万") else "asked:short"]
    return []


_PAGES = ("page", "pages", "页", "ページ", "seiten", "páginas", "pagine")


def _labels(text: str) -> list[str]:
    if text[0] in "{[":
        return list(dict.fromkeys(_KEYS.findall(text[:1500])))[:6]
    lines = text[:1500].split("\n")[:14] + text[-400:].split("\n")[-3:]
    return list(dict.fromkeys(found[1] for line in lines if (found := _LABEL.match(line[:40]))))[:6]


def _scripts(chosen: str, text: str) -> list[str]:
    instruction = script(chosen[:60])
    middle = len(text) // 2
    material = {script(text[at : at + 40]) for at in (0, middle, max(0, len(text) - 40))} - {instruction, "none"}
    return [f"script:{instruction}", *(["script:mixed"] if material else [])]


def script(text: str) -> str:
    """The script of the first letter that is not Latin; `latin` or `none` when there is none."""
    found = _FOREIGN.search(text)
    if found is not None:
        return next((label for top, label in _SCRIPTS if found[0] <= top), "other")
    return "latin" if _LATIN.search(text) else "none"


_FOREIGN = re.compile(r"[^\x00-\u02af\W\d_]")
_LATIN = re.compile(r"[a-zA-Z]")
_SCRIPTS = (
    ("\u03ff", "greek"),
    ("\u052f", "cyrillic"),
    ("\u05ff", "hebrew"),
    ("\u077f", "arabic"),
    ("\u0dff", "indic"),
    ("\u0eff", "thai"),
    ("\u3000", "other"),
    ("\u30ff", "kana"),
    ("\u9fff", "han"),
    ("\ud7ff", "hangul"),
)
