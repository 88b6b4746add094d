"""Trains the task model: `python -m tools.train_tasks` writes routing/data/task_weights.gz and prints the figures."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the folds run side by side; one thread adds up in one order

import numpy as np

from routing.task_model import TaskInput, concepts_text
from routing.task_words import parse_words
from routing.types import TASK_KINDS
from tools.task_fit import NUMBER, Example, Floats, best_temperature, example, fit_gate, fit_task, pack, predict
from tools.task_grammar import DATA, Row
from tools.task_requests import compose

SEED = 7
PER_KIND = 5_000
GROUPS = 8  # of sources held out together
MOST = 25_000  # names kept
WEIGHTS = Path(__file__).parents[1] / "routing" / "data" / "task_weights.gz"


def family(source: str) -> str:
    """What must be held out together: the source before the first `/`, `+` or `(`."""
    return re.split(r"[/+(]", source)[0]


def read_rows(path: Path = DATA / "requests.jsonl") -> list[Row]:
    """The kept requests. Whether a system prompt sets the task is told by whether it comes with one kind only."""
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    kinds: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        kinds[line["system"]].add(line["kind"])
    rows = []
    for line in lines:
        parts = TaskInput(tuple((role, text) for role, text in line["turns"]), line["system"])
        sets = None if not line["system"] else len(kinds[line["system"]]) == 1 and not line["role_only"]
        rows.append(Row(parts, line["kind"], line["source"], line["lang"], sets))
    return rows


def hold_out(real: Sequence[Example], written: Sequence[Example], folds: Sequence[set[int]]) -> Floats:
    """Log odds for every real request by models that saw none of its fold; two folds at a time."""
    odds = np.zeros((len(real), len(TASK_KINDS)))
    with ProcessPoolExecutor(2, mp_context=get_context("fork"), initializer=_share, initargs=(real, written)) as pool:
        for fold, chances in zip(folds, pool.map(_held_out, folds), strict=True):
            odds[sorted(fold)] = np.log(np.maximum(chances, 1e-12))
    return odds


_shared: list[Sequence[Example]] = []


def _share(real: Sequence[Example], written: Sequence[Example]) -> None:
    _shared[:] = [real, written]


def _held_out(fold: set[int]) -> Floats:
    real, written = _shared
    rest = [each for place, each in enumerate(real) if place not in fold] + list(written)
    return predict(fit_task(rest), fit_gate(rest), [real[place] for place in sorted(fold)])


def by_source(real: Sequence[Example]) -> list[set[int]]:
    """Folds of whole source families, about equally large: none is split, so none is seen."""
    families: dict[str, set[int]] = defaultdict(set)
    for place, each in enumerate(real):
        families[family(each.row.source)].add(place)
    folds: list[set[int]] = [set() for _ in range(GROUPS)]
    for name in sorted(families, key=lambda name: (-len(families[name]), name)):
        min(folds, key=len).update(families[name])
    return folds


def at_random(real: Sequence[Example], count: int = 5) -> list[set[int]]:
    """Folds drawn by chance."""
    places = list(range(len(real)))
    random.Random(SEED).shuffle(places)
    return [set(places[start::count]) for start in range(count)]


def show(title: str, real: Sequence[Example], odds: Floats, temperature: float) -> None:
    """Accuracy, precision by coverage, and accuracy by kind and language."""
    labels = np.array([NUMBER[each.row.kind] for each in real])
    raised = np.exp(odds / temperature)
    sure = (raised / raised.sum(axis=1, keepdims=True)).max(axis=1)
    right = odds.argmax(axis=1) == labels
    order = np.argsort(-sure, kind="stable")
    print(f"{title}: accuracy {right.mean():.3f} of {len(real)}")
    for share in (0.25, 0.5, 0.6, 0.7, 0.8, 0.9):
        top = order[: int(share * len(order))]
        print(f"  most confident {share:.0%}: precision {right[top].mean():.3f}, confidence from {sure[top[-1]]:.2f}")
    for name, of in (("kind", [each.row.kind for each in real]), ("language", [each.row.lang for each in real])):
        groups: dict[str, list[bool]] = defaultdict(list)
        for key, good in zip(of, right, strict=True):
            groups[key].append(bool(good))
        print(
            f"  by {name}: "
            + ", ".join(f"{key} {np.mean(good):.2f} ({len(good)})" for key, good in sorted(groups.items()))
        )


def main() -> None:
    """Train on everything kept, after measuring on what was held out."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="skip the held-out figures; keeps --temperature")
    options.add_argument("--temperature", type=float, default=1.0)
    chosen = options.parse_args()
    started = time.monotonic()
    words = parse_words(concepts_text())
    real = [example(row, words) for row in read_rows()]
    written = [example(row, words) for row in compose(SEED, PER_KIND)]
    print(f"{len(real)} kept requests, {len(written)} written by the grammar, seed {SEED}")
    temperature = chosen.temperature
    if not chosen.quick:
        unseen = hold_out(real, written, by_source(real))
        temperature = best_temperature(unseen, np.array([NUMBER[each.row.kind] for each in real]))
        show("whole sources held out", real, unseen, temperature)
        show("random 5-fold", real, hold_out(real, written, at_random(real)), temperature)
    everything = [*real, *written]
    packed = pack(fit_task(everything), fit_gate(everything), temperature, MOST)
    WEIGHTS.write_bytes(packed)
    print(f"temperature {temperature}, {len(packed):,} bytes in {WEIGHTS.name}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
