"""What of a message is instruction, and what is material it is about.

Only the instruction's words may vote on the task. Material (fenced, quoted, tagged, or simply long) is reduced to
its shape: code-like, table-like, dialogue, its script, its length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from routing.task_shape import CODE, LABEL, LOG, shapes_of
from routing.task_shots import shots_of
from routing.task_words import Words, meaning, parts, unspaced

SAMPLE = 6_000  # characters looked at; of longer text the head, the tail and the last announced instruction
HEAD = 700
TAIL = 600
KEEP = 420  # characters of instruction kept
WHOLE = 300  # a text this short is taken as instruction as a whole

_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<([a-zA-Z_][\w-]{1,24})>(.{12,}?)</\1>", re.DOTALL)
_QUOTED = re.compile(
    r"\"([^\"\n]{2,})\"|“([^”]{2,})”|«([^»]{2,})»|「([^」]{2,})」|『([^』]{2,})』|'([^'\n]{2,})'(?!\w)"
)
_GIVEN = frozenset(
    """
    text sentence input output review message context passage article document tweet utterance premise
    hypothesis claim evidence abstract email e-mail post comment headline title source target transcript
    content paragraph ticket snippet excerpt original bio translation summary answer query description
    reference dialogue conversation data satz nachricht aussage übersetzung texte phrase avis traduction
    texto frase mensaje traducción mensagem tradução testo messaggio traduzione текст предложение отзыв
    перевод النص الجملة 文本 句子 内容 原文 译文 评论 新闻 本文 文章 文 訳文 レビュー 발화 텍스트 문장 리뷰
    """.split()  # noqa: SIM905 - a list would be a page long
)
_MENTIONED = ("word ", "term ", "wort ", "begriff ", "mot ", "terme ", "palabra ", "parola ", "palavra ", "слово ")
_UNLABELLED = re.compile(r"^(?![^:：\n]{1,30}[:：] ␀quote$).*\w", re.MULTILINE)
_SENTENCE = re.compile(
    r"[^.!?。！？؟।:：\n]*(?:[.:](?=\S)[^.!?。！？؟।:：\n]*)*(?:[.!?。！？؟।:：]+[\"'”»」)\]]*|\n|\Z)"
)
_WORD = re.compile(r"[^\s!-&(-,./:-@\[-`{-~¡-¿。、，：；？！「」『』（）【】《》…“”‘’„«»–—•·|؟،।]+|[?？؟:：]")
_SPOKEN = re.compile(
    r"^(?!(?:Task|Question|Instructions?|Intent|Summary|Input|Output|TL;DR)\b)[^\W\d_][\w .'-]{0,24}[:：] ?\S.*$",
    re.MULTILINE,
)
_CELLS = re.compile(r"[^\s,;\t]*(?:[,;\t][^\s,;\t]+){2,}$")
_SYMBOLS = re.compile(r"[{}()\[\];=<>|\\_$#&*+]")
_ANNOUNCED = ("\ntask:", "\ninstruction", "\nquestion:", "\nyour task", "\nplease ")


@dataclass(frozen=True, slots=True)
class Passage:
    """A message taken apart: instruction tokens (`words`), their concepts, and the shape of everything."""

    words: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    instructed: bool = False


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
    return read_sample(sample(text), words, keep)


def read_sample(text: str, words: Words, keep: int) -> Passage:
    """The same of what `sample` left."""
    text = text.strip()
    if not text:
        return Passage(shapes=("empty",))
    plain, shapes = _mask(text)
    chosen, instructed = _instruction(plain, words, keep)
    tokens, concepts = _tokens(chosen, words)
    shapes += shapes_of(text, plain, chosen, instructed)
    shapes += shots_of(text, words)
    spoken = instructed or (len(text) <= WHOLE and "code:first" not in shapes and "only:block" not in shapes)
    return Passage(tokens, concepts, tuple(dict.fromkeys(shapes)), spoken)


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
        if len(inner) <= 24 and " " not in inner and not unspaced(inner[0]) and not _named(match):
            return match[0]
        shapes.append("quote:long" if len(inner) > 80 else "quote")
        return " ␀quote "

    if "```" in text:
        text = _FENCE.sub(fence, text)
    if "</" in text:
        text = _TAGGED.sub(tagged, text)
    if len(text) <= 2 * (HEAD + TAIL):
        return _given(_QUOTED.sub(quoted, text)), shapes
    return _given(_QUOTED.sub(quoted, text[: 2 * HEAD]) + "\n" + _QUOTED.sub(quoted, text[-2 * TAIL :])), shapes


def _named(match: re.Match[str]) -> bool:
    """Whether a quoted word is talked about as a word: "what does 'plan' mean", "the term 'summary'"."""
    before, after = match.string[max(0, match.start() - 12) : match.start()], match.string[match.end() :][:10]
    return before.lower().endswith(_MENTIONED) or after.lower().startswith(" mean")


def _given(text: str) -> str:
    """Without what stands behind a label such as `Text:` or `Review:`, unless nothing but that is there."""
    lines = text.split("\n")
    if len(lines) < 2:
        return text
    for place, line in enumerate(lines):
        cut = max(line.find(":", 0, 28), line.find("：", 0, 28))
        if cut > 0 and len(line) > cut + 11 and line[:cut].strip(" \t*_#[]0123456789.)").lower() in _GIVEN:
            lines[place] = f"{line[: cut + 1]} ␀quote"
    found = "\n".join(lines)
    return found if _UNLABELLED.search(found) else text


def _sentences(text: str) -> list[str]:
    return [found for found in (match.strip() for match in _SENTENCE.findall(text)) if len(found) > 1]


def _instruction(text: str, words: Words, keep: int) -> tuple[str, bool]:
    """The sentences that tell what to do, or, when none does, the beginning and the end."""
    candidates = _candidates(text)
    if not candidates:
        return text[:keep], False
    last = len(candidates) - 1
    scored = []
    apart = _apart(text)
    told = 0.0  # once an order has ended in a colon, what follows is more likely its object
    for place, each in enumerate(candidates):
        score = _directs(each, words) + (place == 0) + 0.7 * (place == last)
        if place in (0, last) and len(text) > 400 and _alone(each, text):
            score += 1.2
        elif each in apart:
            score += 0.9
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


def _apart(text: str) -> str:
    """The first and the last paragraph, each if it is short beside the rest: instructions stand there."""
    first, last = text.find("\n\n"), text.rfind("\n\n")
    if first < 0:
        return ""
    head = text[:first] if first <= 320 and len(text) > 3 * first else ""
    tail = text[last:] if len(text) - last <= 320 and last > 2 * (len(text) - last) else ""
    return f"{head}\n{tail}"


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
        or _CELLS.match(line) is not None
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
        meanings: list[str | None] = [*parts(sentence[:80], words)]
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


def _tokens(text: str, words: Words) -> tuple[tuple[str, ...], tuple[str, ...]]:
    tokens: list[str] = []
    concepts: list[str] = []
    for word in _WORD.findall(text.lower())[:80]:
        if unspaced(word[0]) and word[0] not in "？：":
            tokens.append(word)
            concepts += parts(word[:120], words)
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
