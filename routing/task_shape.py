"""The shape of a message: code-like, table-like, a dialogue, its labels, its script, the length it asks for."""

from __future__ import annotations

import re

EDGE = 2_100  # characters from which on only the beginning and the end are looked at line by line

LABEL = re.compile(r"^[\W_]{0,3}([^\W\d_][\w /'-]{1,28}?)[*_]{0,2}\s?[:：](?=\s|$|\S)")
CODE = re.compile(
    r"^[ \t]*(?:def |class \w+|import \w|from [\w.]+ import|#include|public |private |func |fn |function\b"
    r"|const |let |var |SELECT\s"
    r"|INSERT INTO|UPDATE \w+ SET|CREATE TABLE|WITH \w+ AS|return\b|if ?\(|for ?\(|while ?\(|\$ |<\w+[ >]|}|@\w+)",
    re.MULTILINE,
)
LOG = re.compile(
    r"^\W?(?:\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|\w{3} \d\d? \d\d:\d\d)|^(?:ERROR|WARN|INFO|DEBUG)\b", re.MULTILINE
)
_DIALOGUE = re.compile(r"^[^\W\d_][\w .'-]{0,24}[:：] ?\S", re.MULTILINE)
_STUB = re.compile(r"your code here|\bTODO\b|\"\"\"\s*\Z|'''\s*\Z|\{\s*\Z|:\s*\Z|\bpass\s*\Z", re.IGNORECASE)
_KEYS = re.compile(r"\"([A-Za-z_]\w{1,20})\"\s*:")
_CHOICES = re.compile(
    r"[(\[{:：][ ]?[\w'\" /-]{1,40}(?:[,;/|、，][ ]?[\w'\" /-]{1,40}){1,40}"
    r"|,(?<=[\w-],) [\w -]{1,30},? (?:or|oder|ou|o|of|lub|veya|или) [\w-]{1,30}|还是|或者|または|それとも"
)
_ASKED = re.compile(
    r"\d{1,6}(?:[.,]\d{3})?[ -]?"
    r"(?:words?\b|wörter|worten|mots\b|palabras|palavras|parole\b|woorden|słów|kelime|слов|كلمة|शब्द|字|文字|자\b|단어|pages?\b|seiten"
    r"|páginas|pagine|页|ページ)",
    re.IGNORECASE,
)
_ASKED_HAN = re.compile(r"([一二三四五六七八九十两百千万]{1,4})字")
_ROW = re.compile(r"^[^,;\t\n]{1,60}(?:[,;\t](?! )[^,;\t\n]{0,60}){2,}$", re.MULTILINE)
_LIST = re.compile(r"^[ \t]*(?:[-*•]|\(?\d{1,2}[.)]|\(?[a-hA-H][.)])\s", re.MULTILINE)


def shapes_of(text: str, plain: str, chosen: str, instructed: bool) -> list[str]:
    """The shapes of `text`, whose material is masked in `plain` and whose instruction is `chosen`."""
    shapes = [f"length:{_length(len(text))}", f"rest:{_length(len(text) - len(chosen))}"]
    shapes.append("instructed" if instructed else "raw")
    shapes += _forms(text)
    if plain.strip() == "␀block":
        shapes.append("only:block")
    if _CHOICES.search(chosen):
        shapes.append("choices")
    if "?" in chosen and ("table" in shapes or "code" in shapes or "log" in shapes):
        shapes.append("asked:data")
    if text.count("_") > 2:
        shapes.append("snake")
    if plain.endswith(("?", "？", "؟")):
        shapes.append("ends:?")
    elif plain.endswith((":", "：")):
        shapes.append("ends::")
    return [*shapes, *_asked_length(text), *_scripts(chosen, text), *_labels(text)]


def _length(size: int) -> str:
    return next((name for name, top in _LENGTHS if size <= top), "huge")


def _forms(text: str) -> list[str]:
    """What the text looks like, by its edges when it is long."""
    size = len(text)
    edges = text if size <= EDGE else f"{text[: EDGE * 2 // 3]}\n{text[-EDGE // 3 :]}"
    forms = _code_forms(text) if CODE.search(edges) else []
    seen = {
        "log": LOG.search(edges) is not None,
        "table": text.count("|") > 8
        or text.count("\t") > 8
        or text.count(",") * 8 > size
        or len(_ROW.findall(edges)) > 2,
        "json": text[0] in "{[" and text[-1] in "}]",
        "dialogue": edges.count("\n") > 1 and len(_DIALOGUE.findall(edges)) > 2,
        "list": len(_LIST.findall(edges)) > 2,
    }
    return [*forms, *(name for name, found in seen.items() if found)]


def _code_forms(text: str) -> list[str]:
    first = "code:first" if CODE.match(text.lstrip("`\n")[:200]) else "code:later"
    return ["code", first, *(["code:stub"] if _STUB.search(text[-160:]) else [])]


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
    """Names before colons, or the keys of a JSON object: `label:question`, and the first two together."""
    if text[0] in "{[":
        found = _KEYS.findall(text[:1500])
    else:
        lines = text[:1500].split("\n")[:14] + text[-400:].split("\n")[-3:]
        found = [match[1] for line in lines if (match := LABEL.match(line[:40]))]
    labels = list(dict.fromkeys(label.lower()[:14] for label in found[:20]))[:6]
    pair = [f"label:{labels[0]}+{labels[1]}"] if len(labels) > 1 else []
    return [*(f"label:{label}" for label in labels), *pair]


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
