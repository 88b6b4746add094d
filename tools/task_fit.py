"""Fits the two linear models (task, and whether a system prompt sets it) and packs them into the weights file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from routing.task_model import COLUMNS, GATE, KINDS, SURE, SYSTEM_KEEP, ZERO, gather, last_text, system_names
from routing.task_text import read
from routing.task_words import Words
from routing.types import TASK_KINDS
from tools.task_grammar import Row

Floats = NDArray[np.float64]
REAL_WEIGHT = 4.0  # a kept request against one of the grammar's, of which there are thirty times as many
NUMBER = {kind: place for place, kind in enumerate(TASK_KINDS)}


@dataclass(frozen=True, slots=True)
class Example:
    """A row and its features: of the system prompt alone, and of the request without and with the system's task."""

    row: Row
    system: list[str] | None
    free: list[str]
    gated: list[str] | None

    def names(self, gated: bool) -> list[str]:
        return self.gated if gated and self.gated is not None else self.free

    @property
    def weight(self) -> float:
        return 1.0 if self.row.source == "grammar" else REAL_WEIGHT


@dataclass(frozen=True)
class Linear:
    """A fitted model: a column of coefficients per class over the named features."""

    rows: dict[str, int]
    coefficients: Floats  # classes x features
    bias: Floats

    def scores(self, names: Sequence[Sequence[str]]) -> Floats:
        """One row of log odds per request."""
        return np.asarray(matrix(names, self.rows) @ self.coefficients.T + self.bias)


def example(row: Row, words: Words) -> Example:
    """A row's features, by the code that runs in the router."""
    parts, passage = row.parts, read(last_text(row.parts.turns), words)
    if not parts.system.strip():
        return Example(row, None, gather(parts, passage, None, False, words), None)
    system = read(parts.system, words, SYSTEM_KEEP)
    free, gated = (gather(parts, passage, system, sets, words) for sets in (False, True))
    return Example(row, system_names(system), free, gated)


def matrix(names: Sequence[Sequence[str]], rows: dict[str, int]) -> Any:
    """Known features only, each request scaled to length 1, as at run time."""
    starts, places, values = [0], [], []
    for each in names:
        known = [rows[name] for name in each if name in rows]
        places += known
        values += [1 / np.sqrt(len(known))] * len(known) if known else []
        starts.append(len(places))
    return csr_matrix((np.array(values), np.array(places, dtype=np.int32), starts), shape=(len(names), len(rows)))


def fit_linear(
    names: Sequence[Sequence[str]], labels: list[int], weights: list[float], strength: float, least: int
) -> Linear:
    """Logistic regression over the features seen at least `least` times."""
    counts = Counter(name for each in names for name in each)
    rows = {name: place for place, name in enumerate(sorted(name for name, seen in counts.items() if seen >= least))}
    model = LogisticRegression(C=strength, max_iter=90, tol=1e-3)
    model.fit(matrix(names, rows), labels, sample_weight=weights)
    return Linear(rows, model.coef_, model.intercept_)


def fit_gate(examples: Sequence[Example]) -> Linear:
    """Does the system prompt set the task?"""
    known = [each for each in examples if each.system is not None and each.row.sets is not None]
    labels = [int(bool(each.row.sets)) for each in known]
    return fit_linear([each.system or [] for each in known], labels, [each.weight for each in known], 30.0, 2)


def fit_task(examples: Sequence[Example], strength: float = 20.0) -> Linear:
    """Which of the ten kinds?"""
    names = [each.names(bool(each.row.sets)) for each in examples]
    labels = [NUMBER[each.row.kind] for each in examples]
    return fit_linear(names, labels, [each.weight for each in examples], strength, 4)


def predict(task: Linear, gate: Linear, examples: Sequence[Example]) -> Floats:
    """Probabilities, requests x kinds; a system prompt of unclear nature is read both ways, as at run time."""
    sets = 1 / (1 + np.exp(-gate.scores([each.system or [] for each in examples])[:, 0]))
    sets[[each.system is None for each in examples]] = 0.0
    sets = np.where(sets < SURE, 0.0, np.where(sets > 1 - SURE, 1.0, sets))[:, None]
    free = soften(task.scores([each.names(False) for each in examples]))
    gated = soften(task.scores([each.names(True) for each in examples]))
    return (1 - sets) * free + sets * gated


def soften(odds: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities of log odds."""
    raised = np.exp((odds - odds.max(axis=1, keepdims=True)) / temperature)
    return raised / raised.sum(axis=1, keepdims=True)


def best_temperature(odds: Floats, labels: NDArray[np.int64]) -> float:
    """The temperature of least log loss on requests from held-out sources."""

    def loss(temperature: float) -> float:
        scaled = odds / temperature
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        chances = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return float(-chances[np.arange(len(labels)), labels].mean())

    return min((step / 50 for step in range(20, 200)), key=loss)


def pack(task: Linear, gate: Linear, temperature: float, most: int) -> bytes:
    """The weights file: a line of JSON, the names, a byte per name and column; the `most` heaviest names."""
    names = sorted({*task.rows, *gate.rows})
    table = np.zeros((len(names), COLUMNS))
    for place, name in enumerate(names):
        if name in task.rows:
            table[place, :KINDS] = task.coefficients[:, task.rows[name]]
        if name in gate.rows:
            table[place, GATE] = gate.coefficients[0, gate.rows[name]]
    heavy = np.argsort(-np.abs(table).max(axis=1), kind="stable")[:most]
    kept = sorted(heavy.tolist())
    limit = float(np.abs(table[kept]).max())
    scale = limit / 127
    coarse = np.clip(np.rint(table[kept] / scale) + ZERO, 0, 255).astype(np.uint8)
    text = "\n".join(names[place] for place in kept).encode("utf-8")
    about = {
        "names": len(text),
        "scale": round(scale, 8),
        "bias": [round(float(each), 5) for each in [*task.bias, gate.bias[0]]],
        "temperature": round(temperature, 3),
    }
    return gzip.compress(json.dumps(about).encode() + b"\n" + text + coarse.tobytes(), 9, mtime=0)
