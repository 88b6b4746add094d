"""Writes labelled requests from a phrase grammar around self-written material, the same for the same seed."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from routing.task_model import TaskInput
from routing.types import TASK_KINDS, TaskKind

DATA = Path(__file__).parent / "task_data"


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled request. `sets` says whether the system prompt sets the task (None: not known)."""

    parts: TaskInput
    kind: TaskKind
    source: str
    lang: str = "en"
    sets: bool | None = None


def read_sections(name: str) -> dict[str, list[str]]:
    """The `== head` sections of a data file, each a list of lines; blank lines count only inside pools."""
    sections: dict[str, list[str]] = defaultdict(list)
    head = ""
    for line in (DATA / name).read_text("utf-8").splitlines():
        if line.startswith("== "):
            head = line[3:].strip()
        elif head and not line.startswith("# ") and (line.strip() or head == "pool cond"):
            sections[head].append(line.replace("\\n", "\n"))
    return dict(sections)


@dataclass
class Grammar:
    """The phrases, the material and the dice."""

    dice: random.Random
    phrases: dict[str, list[str]] = field(default_factory=lambda: read_sections("phrases.txt"))
    others: dict[str, list[str]] = field(default_factory=lambda: read_sections("phrases_other.txt"))
    stock: dict[str, list[str]] = field(default_factory=lambda: read_sections("material.txt"))

    def pick(self, name: str) -> str:
        """A random expanded line of a pool, or a material."""
        return self.expand(self.dice.choice(self.phrases[f"pool {name}"]))

    def expand(self, line: str) -> str:
        """Resolve `[a|b]` and `{pool}` from the inside out."""
        while True:
            grown = re.sub(r"\[([^\[\]]*\|[^\[\]]*)\]", lambda m: self.dice.choice(m[1].split("|")), line)
            grown = re.sub(r"\{([a-z]+)\}", lambda m: self.pick(m[1]), grown)
            if grown == line:
                return re.sub(r"  +", " ", line).strip(" ") if not line.startswith((" on", " in")) else line
            line = grown

    def one(self, name: str) -> str:
        """One piece of stock material."""
        return self.dice.choice(self.stock[name])

    def foreign(self, lang: str | None = None, count: int = 1) -> str:
        """Sentences of one language (any without `lang`)."""
        langs = sorted({line[:2] for line in self.stock["foreign"]})
        chosen = lang if lang in langs else self.dice.choice(langs)
        pool = [line[4:] for line in self.stock["foreign"] if line.startswith(f"{chosen}: ")]
        return " ".join(self.dice.choice(pool) for _ in range(count))

    def article(self) -> str:
        start = self.dice.randrange(len(self.stock["article"]) - 3)
        text = " ".join(self.stock["article"][start : start + self.dice.choice([2, 4, 6, 9])])
        if self.dice.random() < 0.3:
            text += "\n\n" + " ".join(self.dice.sample(self.stock["article"], 6))
        return text

    def meeting(self) -> str:
        start = self.dice.randrange(len(self.stock["meeting"]) - 4)
        return "\n".join(self.stock["meeting"][start : start + self.dice.choice([3, 5, 9, 14])])

    def log(self) -> str:
        dice = self.dice
        notes = [
            "timeout after 3000ms",
            "connection reset by peer",
            "retry 2/3",
            "user 4411 logged in",
            "disk 91% full",
        ]
        notes += [
            "200 OK /health",
            "NullPointerException at Order.java:88",
            "validation failed for plan 7",
            "queue depth 812",
        ]
        lines = []
        for _ in range(dice.randint(2, 9)):
            level, part = (
                dice.choice(["INFO", "WARN", "ERROR", "DEBUG"]),
                dice.choice(["auth", "db", "gateway", "worker-2"]),
            )
            stamp = (
                f"2024-0{dice.randint(1, 9)}-{dice.randint(10, 28)} {dice.randint(10, 23)}:{dice.randint(10, 59)}:07"
            )
            lines.append(f"{stamp} {level} {part} {dice.choice(notes)}")
        return "\n".join(lines)

    def table(self) -> str:
        dice = self.dice
        head = dice.choice(
            [
                ["month", "revenue", "refunds"],
                ["region", "tickets", "csat"],
                ["store", "visits", "orders"],
                ["Player", "Goals", "Age"],
            ]
        )
        rows = [
            [f"{head[0]}{i}", str(dice.randint(1, 900)), str(dice.randint(1, 90))] for i in range(dice.randint(3, 10))
        ]
        mark = dice.choice([",", "\t", " | "])
        lines = [mark.join(row) for row in [head, *rows]]
        return "\n".join(f"| {line} |" for line in lines) if mark == " | " else "\n".join(lines)

    def record(self) -> str:
        dice = self.dice
        value = {"id": dice.randint(1, 999), "name": dice.choice(["Ana", "Bo", ""]), "items": [dice.randint(1, 9)] * 3}
        return json.dumps(value, indent=dice.choice([None, 2]))

    def code(self) -> str:
        return self.one(self.dice.choice(["python", "python", "othercode"]))

    def tabular(self) -> str:
        """A table: made, or one of the stock."""
        return self.table() if self.dice.random() < 0.5 else self.one("csvrows")

    def make(self, name: str) -> str:
        """One piece of material by name: a maker's, else stock, else a line of a pool."""
        maker: Callable[[], str] | None = getattr(self, name, None) if name in _MAKERS else None
        if maker is not None:
            return maker()
        return self.one(name) if name in self.stock else self.pick(name)

    def anything(self) -> str:
        """Material of any kind, so that its words tell nothing about the task."""
        return self.make(self.dice.choice([*_MAKERS, *_TEXTS, "article", "math", "question"]))

    def text(self) -> str:
        """Prose and short texts only."""
        return self.make(self.dice.choice([*_TEXTS, "article", "foreign", "requestlike"]))

    def requestlike(self) -> str:
        """A request of some other task, as material: its words must not decide."""
        kind = self.dice.choice(TASK_KINDS)
        section = self.dice.choice(["user", "alone", "system"])
        lines = self.phrases.get(f"{kind} {section}") or self.phrases[f"{kind} system"]
        return self.expand(self.dice.choice(lines))

    def material(self, kind: TaskKind) -> str:
        """What a request of this kind is usually about, sometimes anything."""
        return self.anything() if self.dice.random() < 0.15 else self.make(self.dice.choice(_USUAL[kind].split()))


_MAKERS = ("article", "meeting", "log", "table", "record", "code", "foreign", "requestlike", "text")
_TEXTS = ("utterance", "review", "headline", "email", "legal", "bio", "story", "plan", "ticket", "claimpair", "list")
_USUAL: dict[TaskKind, str] = {
    "summarization": "article article meeting story legal email log notes review text",
    "translation": "text foreign foreign utterance email legal article",
    "classification": "review headline ticket bio utterance foreign email code list article question",
    "validation": "claimpair claimpair claimpair claimpair claimpair code record plan fact email",
    "intent_detection": "utterance utterance utterance utterance utterance meeting email ticket requestlike",
    "analysis": "code code command command log table csvrows csvrows notes"
    " meeting bio review article legal legal email text",
    "code_generation": "code code stub stub tables",
    "planning": "email plan todo meeting ticket notes",
    "long_form_generation": "story list article topic notes",
    "general": "article email story bio",
}
