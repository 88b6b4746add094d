"""Puts phrases and material together into whole requests: wrappers, system prompts, follow-ups, other languages."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from routing.task_model import TaskInput
from routing.types import TASK_KINDS, TaskKind
from tools.task_grammar import Grammar, Row
from tools.task_shots import as_json, shown

Turns = tuple[tuple[str, str], ...]

_ALONE_SHARE = {
    "general": 0.75,
    "code_generation": 0.6,
    "planning": 0.8,
    "long_form_generation": 0.85,
    "validation": 0.2,
    "analysis": 0.08,
}
_BARE: dict[TaskKind, list[str]] = {"code_generation": ["stub"], "general": ["math", "riddle", "question"]}
_EXCHANGES = (
    ("hi", "Hello! How can I help?"),
    ("thanks", "You are welcome!"),
    ("ok, next one", "Ready when you are."),
    ("I had a long day", "Sorry to hear that. How can I help?"),
    ("summarize my day", "You had three meetings and finished the report."),
    ("write a function that adds two numbers", "def add(a, b):\n    return a + b"),
    ("translate cat to French", "chat"),
    ("make a plan for Monday", "9:00 gym, 10:00 work, 18:00 dinner"),
    ("is 7 a prime number?", "Yes, 7 is prime."),
    ("what does SaaS mean?", "Software as a service."),
    ("which label fits this ticket?", "billing"),
)
_LABELS = (
    "Text",
    "Input",
    "Article",
    "Message",
    "Document",
    "Review",
    "Content",
    "Passage",
    "Utterance",
    "Transcript",
    "Sentence",
    "Context",
)


@dataclass(slots=True)
class Author:
    """Writes rows with the grammar's dice."""

    grammar: Grammar

    @property
    def dice(self) -> random.Random:
        return self.grammar.dice

    def row(self, kind: TaskKind) -> Row:
        """One request of the kind, in one of the shapes requests have."""
        roll = self.dice.random()
        if roll < 0.13:
            return self.other_language(kind)
        if roll < 0.19:
            return self.follow_up(kind)
        if roll < 0.45 and kind not in ("long_form_generation", "planning", "code_generation", "general"):
            return self.by_system(kind)
        if roll < 0.33:
            return self.by_system(kind)
        return self.by_user(kind)

    def by_user(self, kind: TaskKind) -> Row:
        """The user's turn holds the instruction."""
        if self.dice.random() < 0.06 and (examples := shown(kind, self.grammar)) is not None:
            return self.wrapped(kind, examples)
        if kind in _BARE and self.dice.random() < 0.07:
            return self.wrapped(kind, self.bare(kind))
        if kind == "analysis" and self.dice.random() < 0.14:
            return self.wrapped(
                kind,
                self.dice.choice([self.join, self.below])(self.grammar.pick("tablequestion"), self.grammar.tabular()),
            )
        alone = self.grammar.phrases.get(f"{kind} alone")
        if alone and self.dice.random() < _ALONE_SHARE[kind]:
            text = self.grammar.expand(self.dice.choice(alone))
            text = self.polite(text) if kind != "general" and self.dice.random() < 0.5 else text
            if self.dice.random() < 0.05:
                form = self.dice.choice(
                    ["### Instruction:\n{}\n\n### Response:", "Instruction: {}\nOutput:", "Task: {}\nAnswer:"]
                )
                text = form.format(text) if "{" not in text else text
            if kind in ("long_form_generation", "planning") and self.dice.random() < 0.3:
                text = self.detailed(text)
        else:
            phrase = self.polite(self.grammar.expand(self.dice.choice(self.grammar.phrases[f"{kind} user"])))
            content = self.grammar.material(kind)
            text = as_json(phrase, content, self.grammar) if self.dice.random() < 0.02 else self.join(phrase, content)
        return self.wrapped(kind, text)

    def below(self, phrase: str, content: str) -> str:
        """The material first, then a question about it."""
        return f"{content}\n\n{phrase}"

    def detailed(self, text: str) -> str:
        """A request with its requirements spelled out, and sometimes its sources."""
        mark = self.dice.choice(["- ", "* ", "{}. ", ""])
        picked = [self.grammar.pick("detail") for _ in range(self.dice.randint(2, 7))]
        lines = "\n".join(mark.format(number) + line for number, line in enumerate(picked, 1))
        head = self.grammar.pick("detailhead")
        sources = f"\n\n{self.grammar.article()}" if self.dice.random() < 0.4 else ""
        return self.dice.choice(
            [
                f"{text}\n\n{head}\n{lines}{sources}",
                f"{sources.strip()}\n\n{text} {head}\n{lines}".strip(),
                f"{text} {' '.join(picked)}",
            ]
        )

    def bare(self, kind: TaskKind) -> str:
        """Material that is a request by itself: a stub asks for code, a problem for its solution."""
        pool = self.dice.choice(_BARE[kind])
        content = self.grammar.one(pool) if pool in self.grammar.stock else self.grammar.pick(pool)
        return (
            self.dice.choice([content, f"```python\n{content}\n```", f"```\n{content}\n```"])
            if pool == "stub"
            else content
        )

    def by_system(self, kind: TaskKind) -> Row:
        """The system prompt sets the task; the user's turn is raw material, or the bare subject."""
        system = self.system(self.grammar.expand(self.dice.choice(self.grammar.phrases[f"{kind} system"])))
        subjects = {
            "planning": ["goal"],
            "code_generation": ["spec", "question"],
            "long_form_generation": ["topic"],
            "general": ["question", "math", "question", "topic"],
        }
        if kind in subjects and self.dice.random() < 0.85:
            content = self.grammar.pick(self.dice.choice(subjects[kind]))
        else:
            content = self.grammar.material(kind)
        return Row(self.asked(kind, self.turns(self.raw(content)), system), kind, "grammar", sets=kind != "general")

    def follow_up(self, kind: TaskKind) -> Row:
        """A short turn that goes on with the exchange before."""
        phrases = self.grammar.phrases.get(f"{kind} next")
        if not phrases:
            return self.by_user(kind)
        before = self.by_user(kind).parts
        answer = self.grammar.make({"code_generation": "code", "planning": "plan"}.get(kind, "text"))
        turns = (*before.turns, ("assistant", answer), ("user", self.grammar.expand(self.dice.choice(phrases))))
        return Row(TaskInput(turns, before.system), kind, "grammar", sets=False if before.system else None)

    def other_language(self, kind: TaskKind) -> Row:
        """The instruction in another language; the material in that language, in English or in a third."""
        heads = [head for head in self.grammar.others if head.split()[1] == kind]
        head = self.dice.choice([*heads, *[each for each in heads if each[:2] in ("zh", "ja", "de", "fr", "es")] * 2])
        lang = head[:2]
        line = self.dice.choice(self.grammar.others[head])
        phrase = self.grammar.expand(line[2:] if line[0] in "!=" else line)
        mixed = self.dice.random() < 0.3
        content = self.grammar.material(kind) if mixed else self.grammar.foreign(lang, self.dice.choice([1, 2, 4]))
        if kind in ("analysis", "code_generation") and self.dice.random() < 0.5:
            content = self.grammar.code()
        if line[0] == "!":
            return Row(self.asked(kind, self.turns(content), phrase), kind, "grammar", lang, sets=kind != "general")
        row = self.wrapped(kind, phrase if line[0] == "=" else self.join(phrase, content))
        return Row(row.parts, kind, "grammar", lang, row.sets)

    def wrapped(self, kind: TaskKind, text: str) -> Row:
        """Around a user turn: often a system prompt that sets only a manner, sometimes an unrelated exchange."""
        system = ""
        if self.dice.random() < 0.34:
            system = " ".join(self.grammar.pick("manner") for _ in range(self.dice.choice([1, 1, 2])))
        return Row(self.asked(kind, self.turns(text), system), kind, "grammar", sets=False if system else None)

    def turns(self, text: str) -> Turns:
        if self.dice.random() > 0.08:
            return (("user", text),)
        asked, answered = self.dice.choice(_EXCHANGES)
        return (("user", asked), ("assistant", answered), ("user", text))

    def asked(self, kind: TaskKind, turns: Turns, system: str) -> TaskInput:
        """Sometimes with the parameters such requests are sent with."""
        if self.dice.random() > 0.08:
            return TaskInput(turns, system)
        short = kind in ("classification", "intent_detection", "validation")
        tokens = self.dice.choice([8, 16, 32, 64, 200] if short else [200, 500, 1000, 2000, 4000])
        tokens = self.dice.choice([3000, 8000]) if kind == "long_form_generation" else tokens
        wants_json = self.dice.random() < (0.5 if short or kind == "analysis" else 0.1)
        return TaskInput(turns, system, max_tokens=tokens, response_format="json_object" if wants_json else None)

    def polite(self, phrase: str) -> str:
        """The phrase with a beginning and an end as people write them."""
        if self.dice.random() < 0.35:
            phrase = f"{self.grammar.pick('please')} {phrase}"
        elif self.dice.random() < 0.5:
            phrase = phrase[:1].upper() + phrase[1:]
        if phrase[-1:].isalnum() and self.dice.random() < 0.4:
            phrase += self.dice.choice([".", ".", "!", ":"])
        return f"{phrase} {self.grammar.pick('after')}" if self.dice.random() < 0.22 else phrase

    def system(self, phrase: str) -> str:
        """A system prompt around the sentence that sets the task."""
        role = f"{self.grammar.pick('role')} " if self.dice.random() < 0.35 else ""
        tail = self.dice.choice(self.grammar.phrases["pool tail"]) if self.dice.random() < 0.35 else ""
        return f"{role}{phrase}{tail}"

    def raw(self, content: str) -> str:
        """Material as applications hand it over."""
        label = self.dice.choice(_LABELS)
        forms = [
            content,
            content,
            content,
            content,
            f'"{content}"',
            f"{label}: {content}",
            json.dumps({label.lower(): content}),
        ]
        return self.dice.choice([*forms, f"<{label.lower()}>{content}</{label.lower()}>", f"{label}:\n{content}"])

    def join(self, phrase: str, content: str) -> str:
        """The instruction beside its material, in one of the ways people set them apart."""
        label = self.dice.choice(_LABELS)
        forms = [
            f"{phrase}\n\n{content}",
            f"{phrase}\n\n{content}",
            f"{phrase}\n{content}",
            f"{content}\n\n{phrase}",
            f"{content}\n{phrase}",
            f"{phrase.rstrip('.:!')}: {content}",
            f'{phrase}\n"{content}"',
            f'{phrase} "{content}"',
            f"{phrase}\n```\n{content}\n```",
            f"{phrase}\n---\n{content}\n---",
            f"<text>\n{content}\n</text>\n{phrase}",
            f"{phrase}\n\n{label}: {content}",
            f"{label}: {content}\n\n{phrase}",
            f"{label}:\n{content}\n\n{phrase}",
            f"{phrase}\n{label}: {content}\nOutput:",
            f"{content} {phrase}",
            f"### Instruction:\n{phrase}\n\n### Input:\n{content}\n\n### Response:",
            f"Instruction: {phrase}\nInput: {content}\nOutput:",
            f"Definition: {phrase}\n\n{label}: {content}",
            f"{phrase}\n\n{content}\n\nAnswer:",
        ]
        return self.dice.choice(forms)


def compose(seed: int, per_kind: int) -> list[Row]:
    """`per_kind` rows of every kind, more of the general one, which is the widest; the same for the same seed."""
    author = Author(Grammar(random.Random(seed)))
    counts = {kind: per_kind * 8 // 5 if kind == "general" else per_kind for kind in TASK_KINDS}
    return [author.row(kind) for kind, count in counts.items() for _ in range(count)]
