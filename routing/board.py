"""The one document on which all instances read and write every target's breaker.

One, so that a look costs the store one entity however many targets there are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from routing.breaker_state import Breaker, from_document, to_document
from routing.documents import LARGEST, SCHEMA
from routing.tally import EMPTY

KEY = "targets"  # of the document in the store


@dataclass(frozen=True, slots=True)
class Board:
    """What the document says. A target without an entry has had no trouble yet.

    `saves` counts the writes. `others` are the entries of targets that this instance's routes file does not name.
    """

    states: Mapping[str, Breaker] = field(default_factory=dict)
    saves: int = 0
    others: Mapping[str, Any] = field(default_factory=dict)

    def state(self, target: str) -> Breaker:
        """The target's breaker."""
        return self.states.get(target, UNTOUCHED)

    def changed(self, states: Mapping[str, Breaker]) -> Board:
        """The board after one more write."""
        return replace(self, states={**self.states, **states}, saves=self.saves + 1)


UNTOUCHED = Breaker()


def board_of(document: Mapping[str, Any], targets: Collection[str]) -> tuple[Board, str | None]:
    """What can be read of the document, and why the rest cannot; None when all of it can."""
    entries, saves = document.get("targets"), document.get("saves")
    if document.get("schema") != SCHEMA or not isinstance(entries, dict) or type(saves) is not int or saves < 0:
        return Board(), "not a document of breakers"
    states, why = {}, None
    for target in entries.keys() & set(targets):
        try:
            states[target] = from_document(entries[target])
        except ValueError as error:
            why = f"{target}: {error}"
    return Board(states, saves, {name: entries[name] for name in entries.keys() - set(targets)}), why


def document_of(board: Board) -> dict[str, Any]:
    """The board as plain JSON values, no larger than a store takes.

    What has to go when it would be: first what only other routes files name, then the counts.
    """
    document = _document(board)
    if _too_large(document):
        document = _document(replace(board, others={}))
    if _too_large(document):
        counted = {target: replace(state, tally=EMPTY, suspicion=None) for target, state in board.states.items()}
        document = _document(replace(board, states=counted, others={}))
    return document


def _document(board: Board) -> dict[str, Any]:
    entries = {target: to_document(state) for target, state in board.states.items()}
    return {"schema": SCHEMA, "saves": board.saves, "targets": {**board.others, **entries}}


def _too_large(document: Mapping[str, Any]) -> bool:
    return len(json.dumps(document, separators=(",", ":"))) > LARGEST
