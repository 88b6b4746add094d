"""Measures task detection on requests written by hand: `python -m tools.task_probes` prints accuracy and precision."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from routing.task_model import TaskInput
from routing.tasks import DEFAULT_MIN, detect
from routing.types import TASK_KINDS, TaskKind

PROBES = Path(__file__).parent / "task_data" / "probes.txt"
_TURN = re.compile(r"^@(system|user|assistant)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Probe:
    """A request with its right kind; `fresh` when nothing was changed after looking at it."""

    parts: TaskInput
    kind: TaskKind
    fresh: bool
    lang: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A probe, the kind that was found however uncertain, and how sure it was."""

    probe: Probe
    kind: TaskKind
    confidence: float

    @property
    def right(self) -> bool:
        return self.kind == self.probe.kind


def read_probes(path: Path = PROBES) -> list[Probe]:
    """All probes, with their material filled in."""
    stock: dict[str, str] = {}
    probes = []
    for head, body in _sections(path.read_text("utf-8")):
        mark, *about = head.split()
        if mark == "material":
            stock[about[0]] = body
            continue
        if about[0] not in TASK_KINDS:
            raise ValueError(f"no task {about[0]!r}")
        text = re.sub(r"\$\$(\w+)\$\$", lambda name: stock[name[1]], body)
        probes.append(Probe(_parts(text), about[0], mark == "fresh", about[2]))
    return probes


def _sections(text: str) -> Iterator[tuple[str, str]]:
    for section in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        head, _, body = section.partition("\n")
        yield head, body.strip("\n")


def _parts(text: str) -> TaskInput:
    first, *rest = _TURN.split(text)
    turns = [*([("user", first)] if first else []), *zip(rest[::2], rest[1::2], strict=True)]
    system = " ".join(body.strip("\n") for role, body in turns if role == "system")
    return TaskInput(tuple((role, body.strip("\n")) for role, body in turns if role != "system"), system)


def try_all(probes: Sequence[Probe]) -> list[Tried]:
    """Every probe through the detector, surest first."""
    tried = []
    for probe in probes:
        task = detect(probe.parts, minimum=0.0)
        tried.append(Tried(probe, task.kind, task.confidence))
    return sorted(tried, key=lambda each: -each.confidence)


def share_right(tried: Sequence[Tried]) -> float:
    """The share of right ones."""
    return sum(each.right for each in tried) / len(tried)


def as_answered(tried: Sequence[Tried], minimum: float) -> float:
    """Accuracy when what is less sure than `minimum` counts as general, as a route with that setting says it."""
    said = [each.kind if each.confidence >= minimum else "general" for each in tried]
    return sum(kind == each.probe.kind for kind, each in zip(said, tried, strict=True)) / len(tried)


def show(name: str, tried: Sequence[Tried]) -> None:
    """Accuracy of the bare kind and of the answer, precision of the surer ones, accuracy by kind."""
    print(f"{name}: {len(tried)} requests, kind {share_right(tried):.3f}, answer {as_answered(tried, DEFAULT_MIN):.3f}")
    half = tried[: len(tried) // 2]
    above = [each for each in tried if each.confidence >= DEFAULT_MIN]
    print(f"  precision: surer half {share_right(half):.3f} (from {half[-1].confidence:.2f})", end="")
    print(f", at {DEFAULT_MIN} and above {share_right(above):.3f} ({len(above) / len(tried):.0%} of requests)")
    groups: dict[str, list[Tried]] = defaultdict(list)
    for each in tried:
        groups[each.probe.kind].append(each)
        groups["English" if each.probe.lang in ("en", "mixed") else "other languages"].append(each)
    print("  " + ", ".join(f"{key} {share_right(groups[key]):.2f}" for key in sorted(groups)))


def main() -> None:
    """The requests that changed nothing, then those that were looked at."""
    probes = read_probes()
    show("fresh", try_all([probe for probe in probes if probe.fresh]))
    show("read", try_all([probe for probe in probes if not probe.fresh]))


if __name__ == "__main__":
    main()
