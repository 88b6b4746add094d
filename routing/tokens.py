"""How many tokens a request will be, estimated without a tokenizer: by counting patterns of character classes.

A text becomes one byte per character that says its class; a token count is then a weighted sum of how often a few
short patterns occur, all counted in C. The weights were fitted to the o200k tokenizer; docs/prices.md has the errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SCANNED = 12_288  # characters; a longer text is judged by evenly spaced windows
_WINDOWS, _WINDOW = 64, 192

# Source: OpenAI's guide to counting tokens of chat messages: three around each message, three before the reply.
_PER_MESSAGE, _PER_NAME, _PER_REPLY = 4, 1, 3  # a message's role is a token too
# Source: OpenAI's guide to images: 85, and in high detail 170 for each 512 pixel tile, four in a usual picture.
_IMAGE_LOW, _IMAGE_HIGH = 85, 85 + 4 * 170

_CONTINUATION = bytes(range(0x80, 0xC0))  # UTF-8 bytes that begin no character
_TRADITIONAL = "這個們說會國為來對時"  # frequent, and only in traditional Chinese
_UKRAINIAN = "іїєґ"  # frequent, and not in Russian
_ENGLISH = (" the ", " of ", " and ", " to ", " for ", " is ", " with ", " you")  # in nearly every sentence of it
_JUDGED, _VARIED = 2_000, 60  # characters, and words, of a text that tell whether it is English

# The class of a character by the first byte of its UTF-8: Latin with accents, Greek, Cyrillic, Hebrew, Arabic,
# Indic and Thai, kana and CJK punctuation, CJK, Hangul, other punctuation, emoji and the rest.
_LEADS = {
    "l": range(0xC3, 0xCA),
    "g": range(0xCA, 0xD0),
    "y": range(0xD0, 0xD5),
    "h": range(0xD5, 0xD8),
    "r": range(0xD8, 0xE0),
    "i": range(0xE0, 0xE2),
    "j": range(0xE3, 0xE4),
    "z": range(0xE4, 0xEA),
    "k": range(0xEA, 0xEF),
    "p": (0xC2, 0xE2, 0xEF),
    "e": range(0xF0, 0x100),
}


def _class_of(byte: int) -> str:
    character = chr(byte)
    if character.isascii():
        if character.isalpha():
            return "a" if character.islower() else "A"
        return "0" if character.isdigit() else character if character in " \t\n" else "\n" if byte == 0x0D else "."
    return next((name for name, leads in _LEADS.items() if byte in leads), "p")


def _only(classes: str) -> bytes:
    """A table that turns these classes into `a` and all others into spaces: runs of them can then be counted."""
    return bytes(ord("a") if chr(byte) in classes else ord(" ") for byte in range(256))


_CLASSES = "".join(_class_of(byte) for byte in range(256)).encode()
_LETTERS, _MARKS, _LETTERS_AND_DIGITS = _only("aAl"), _only("."), _only("aA0")
_RUN = b" a"  # where a run begins, in a text of `a` and spaces that begins with a space

_WORD, _FOUR_LETTERS = 0.68, 0.51  # each word, and each four letters of one
_ACCENTED = (-0.31, 0.45)  # on top of these, where accents say that the words are not English
_FOREIGN = (0.1, 0.25)  # on top, where nothing but the words themselves says so
_REPEATED = (0.0, -0.19)  # on top, where it is the same few words again and again, which are likely to be common ones
_MARKS_TOGETHER, _TWO_MARKS = 0.62, 0.27
_DIGIT_WEIGHTS = ((b"0", 1.11), (b"000", -2.31), (b" 0", 1.13))
_BREAK_WEIGHTS = ((b"\n", 1.07), (b"\n ", 0.35), (b".\n", -0.85), (b"\n\n", -1.51))
_SPACE_WEIGHTS = ((b"AA", -0.1), (b"\t", 0.73), (b"  ", 0.08), (b" .", 0.46))
# Class: (each character, each run of them).
_SCRIPT_WEIGHTS: Mapping[str, tuple[float, float]] = {
    "p": (0.89, 0.0),
    "g": (0.0, 2.53),
    "y": (0.0, 1.59),
    "h": (0.32, 0.58),
    "r": (0.36, 0.0),
    "i": (0.38, 0.0),
    "j": (0.65, 0.0),
    "z": (0.79, 0.0),
    "k": (0.8, 0.0),
    "e": (2.0, 0.0),
}
_RARER_CYRILLIC = 0.09  # on top of each Cyrillic character's, in Ukrainian
_RARER_HAN = 0.2  # on top of a CJK character's, in Japanese and in traditional Chinese
_RUNS = {name: _only(name) for name, (_, run) in _SCRIPT_WEIGHTS.items() if run}


def estimate(text: str) -> int:
    """Tokens of `text`, at least 1 unless it is empty.

    About 25 ns a character; a text longer than `SCANNED` takes no more time than its samples.
    """
    if len(text) <= SCANNED:
        return _rounded(_scan(text), text)
    step = (len(text) - _WINDOW) / (_WINDOWS - 1)
    starts = [int(number * step) for number in range(_WINDOWS)]
    sample = "".join([text[start : start + _WINDOW] for start in starts])
    return _rounded(_scan(sample) * len(text) / len(sample), text)


def estimate_messages(messages: Sequence[Any], tools: Sequence[Any] = (), schema: Any = None) -> int:
    """Tokens of chat messages as they came in the request's JSON, with the tools' and the answer's JSON schema.

    Images count as the usual one at their level of detail; audio and files inside a message are not counted.
    """
    parts = [part for message in messages if isinstance(message, Mapping) for part in _pieces(message)]
    texts = [part for part in parts if isinstance(part, str)]
    texts += [_json(given) for given in (*tools, schema) if given]
    fixed = sum(part for part in parts if isinstance(part, int))
    return estimate(" ".join(texts)) + fixed + len(messages) * _PER_MESSAGE + _PER_REPLY


def of_request(fields: Mapping[str, Any]) -> int:
    """Input tokens of a chat completion request, from its JSON."""
    wanted = fields.get("response_format")
    schema = wanted.get("json_schema") if isinstance(wanted, Mapping) else None
    return estimate_messages(
        _listed(fields.get("messages")), [*_listed(fields.get("tools")), *_listed(fields.get("functions"))], schema
    )


def of_inputs(inputs: Sequence[str | Sequence[int]]) -> list[int]:
    """Tokens of each input of a request for embeddings or text completions: a text, or its tokens."""
    return [estimate(given) if isinstance(given, str) else len(given) for given in inputs]


def _scan(text: str) -> float:
    encoded = text.encode("utf-8", "surrogatepass")
    plain = len(encoded) == len(text)
    classes = encoded.translate(_CLASSES) if plain else encoded.translate(_CLASSES, _CONTINUATION)
    letters, marks = b" " + classes.translate(_LETTERS), b" " + classes.translate(_MARKS)
    words, fours, together = letters.count(_RUN), letters.count(b"aaaa"), marks.count(_RUN)
    word, four = _beyond_english(text, classes, words, together)
    tokens = (_WORD + word) * words + (_FOUR_LETTERS + four) * fours
    tokens += _MARKS_TOGETHER * together + _TWO_MARKS * marks.count(b"aa") + _weighed(classes, _SPACE_WEIGHTS)
    if b"0" in classes:
        tokens += _weighed(classes, _DIGIT_WEIGHTS) + _blobs(classes)
    if b"\n" in classes:
        tokens += _weighed(classes, _BREAK_WEIGHTS)
    return tokens if plain else tokens + _beyond_ascii(text, classes)


def _beyond_english(text: str, classes: bytes, words: int, marks: int) -> tuple[float, float]:
    """What a word, and four letters of one, add where they are of another language in Latin letters."""
    if 25 * (classes.count(b"l") + classes.count(b"i")) > words:
        return _ACCENTED
    if words < 6 or 4 * marks > words:
        return 0.0, 0.0  # too little to tell, or code
    start = text[:_JUDGED]
    if 25 * sum(map(start.count, _ENGLISH)) * len(text) >= words * len(start):
        return 0.0, 0.0
    first = start.split(maxsplit=_VARIED)[:_VARIED]
    return _FOREIGN if 2 * len(set(first)) > len(first) else _REPEATED


def _blobs(classes: bytes) -> float:
    """What base64 and keys add: long runs of both cases and digits, where a token is hardly more than a character."""
    return min(12.0 * classes.translate(_LETTERS_AND_DIGITS).count(b"a" * 24), 8.0 * classes.count(b"A0"))


def _beyond_ascii(text: str, classes: bytes) -> float:
    """What accents and the other scripts add."""
    tokens = 0.73 * classes.count(b"l")
    counts = {name: found for name in _SCRIPT_WEIGHTS if (found := classes.count(name.encode()))}
    for name, found in counts.items():
        character, run = _SCRIPT_WEIGHTS[name]
        tokens += found * character
        if run:
            tokens += run * (b" " + classes.translate(_RUNS[name])).count(_RUN)
    if 50 * sum(map(text.count, _UKRAINIAN)) > (cyrillic := counts.get("y", 0)):
        tokens += _RARER_CYRILLIC * cyrillic
    return tokens + _RARER_HAN * _rarer_han(text, counts.get("z", 0), counts.get("j", 0))


def _rarer_han(text: str, han: int, kana: int) -> int:
    """How many CJK characters are of a kind that the tokenizer knows fewer words of."""
    if not han or 5 * kana > han:
        return han
    return han if 50 * sum(map(text.count, _TRADITIONAL)) > han else 0


def _weighed(classes: bytes, weights: tuple[tuple[bytes, float], ...]) -> float:
    return sum([classes.count(pattern) * weight for pattern, weight in weights])


def _rounded(tokens: float, text: str) -> int:
    return max(1, round(tokens)) if text else 0


def _pieces(message: Mapping[str, Any]) -> Iterator[str | int]:
    """What a message consists of: texts, and tokens that are known without one."""
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in _listed(content):
        if isinstance(part, Mapping):
            yield _image(part) if part.get("type") == "image_url" else _text(part)
    if name := message.get("name"):
        yield str(name)
        yield _PER_NAME
    for call in [*_listed(message.get("tool_calls")), message.get("function_call")]:
        if call:
            yield _json(call)


def _text(part: Mapping[str, Any]) -> str:
    text = part.get("text") or part.get("refusal")
    return text if isinstance(text, str) else ""


def _image(part: Mapping[str, Any]) -> int:
    image = part.get("image_url")
    return _IMAGE_LOW if isinstance(image, Mapping) and image.get("detail") == "low" else _IMAGE_HIGH


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
