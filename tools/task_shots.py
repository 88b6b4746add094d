"""Requests that show examples and leave the last one open, or that come as one JSON object."""

from __future__ import annotations

import json

from routing.types import TaskKind
from tools.task_grammar import Grammar

_ENDS: dict[TaskKind, tuple[tuple[str, str], ...]] = {
    "classification": (
        ("Text", "Label"),
        ("Review", "Sentiment"),
        ("Tweet", "Class"),
        ("Input", "Output"),
        ("Q", "Category"),
    ),
    "intent_detection": (
        ("Utterance", "Intent"),
        ("User", "Intent"),
        ("Input", "Output"),
        ("Query", "Label"),
        ("Text", "Answer"),
    ),
    "translation": (
        ("English", "{lang}"),
        ("Source", "Target"),
        ("Input", "Output"),
        ("{lang}", "English"),
        ("EN", "DE"),
    ),
    "summarization": (("Article", "Summary"), ("Text", "TL;DR"), ("Input", "Output"), ("Dialogue", "Summary")),
    "validation": (("Claim", "Verdict"), ("Statement", "Answer"), ("Input", "Output"), ("Statement", "True or false")),
    "analysis": (("Text", "Entities"), ("Input", "Output"), ("Sentence", "Triples"), ("Review", "Aspects")),
    "code_generation": (("Question", "SQL"), ("Input", "Output"), ("Task", "Code"), ("Description", "Command")),
    "general": (("Q", "A"), ("Question", "Answer"), ("Input", "Output")),
}
_VERDICTS = (("true", "false"), ("yes", "no"), ("SUPPORTED", "REFUTED"), ("valid", "invalid"), ("correct", "incorrect"))
_KEYS = ("text", "input", "content", "document", "message", "data", "query")


def shown(kind: TaskKind, grammar: Grammar) -> str | None:
    """Two to five examples and an open one; None for kinds that are hardly asked for that way."""
    if kind not in _ENDS:
        return None
    dice = grammar.dice
    given, wanted = (grammar.expand(each) for each in dice.choice(_ENDS[kind]))
    cats = grammar.pick("intents" if kind == "intent_detection" else "cats").replace(" or ", ", ").split(", ")
    verdicts = dice.choice(_VERDICTS)
    lang = dice.choice(["de", "fr", "es", "it", "ru", "zh", "ja"])

    def pair() -> tuple[str, str]:
        asked = _asked(kind, grammar)
        answers = {
            "classification": lambda: dice.choice(cats),
            "intent_detection": lambda: dice.choice(cats),
            "translation": lambda: grammar.foreign(lang),
            "summarization": lambda: grammar.one("headline"),
            "validation": lambda: dice.choice(verdicts),
            "analysis": lambda: f"{grammar.pick('short')} | {grammar.pick('short')}",
            "code_generation": lambda: grammar.code().split("\n")[0],
            "general": lambda: grammar.pick("short"),
        }
        return asked, answers[kind]()

    pairs = [pair() for _ in range(dice.randint(2, 5))]
    if dice.random() < 0.3:
        arrow = dice.choice([" -> ", " => ", " → ", " = ", ": "])
        body = (
            "\n".join(f"{asked}{arrow}{answer}" for asked, answer in pairs[:-1]) + f"\n{pairs[-1][0]}{arrow.rstrip()}"
        )
    else:
        gap = dice.choice(["\n", "\n\n"])
        done = [f"{given}: {asked}\n{wanted}: {answer}" for asked, answer in pairs[:-1]]
        body = gap.join([*done, f"{given}: {pairs[-1][0]}\n{wanted}:"])
    if dice.random() < 0.4:
        return body
    return f"{grammar.expand(dice.choice(grammar.phrases[f'{kind} user']))}\n\n{body}"


def _asked(kind: TaskKind, grammar: Grammar) -> str:
    pools = {
        "classification": "review",
        "intent_detection": "utterance",
        "translation": "utterance",
        "summarization": "email",
        "validation": "fact",
        "analysis": "review",
        "code_generation": "spec",
        "general": "question",
    }
    return grammar.make(pools[kind]).replace("\n", " ")


def as_json(phrase: str, content: str, grammar: Grammar) -> str:
    """Instruction and material as the values of one JSON object."""
    dice = grammar.dice
    whole = {dice.choice(["instruction", "task", "prompt", "request", "question"]): phrase, dice.choice(_KEYS): content}
    return json.dumps(whole, ensure_ascii=False, indent=dice.choice([None, None, 2]))
