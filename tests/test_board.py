"""The one document on which all breakers are shared."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routing.board import Board, board_of, document_of
from routing.breaker_state import Breaker, Manual, to_document
from routing.documents import LARGEST, SCHEMA
from routing.tally import Tally

OPEN = Breaker(phase="open", generation=3, open_until=90.0)


def document(**changes: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "saves": 7, "targets": {"gpt": to_document(OPEN)}, **changes}


def test_what_is_written_is_read_again():
    board = Board({"gpt": OPEN}, 7, {"theirs": {"any": "thing"}})
    assert board_of(json.loads(json.dumps(document_of(board))), ["gpt", "claude"]) == (board, None)


def test_a_target_that_is_not_on_it_had_no_trouble():
    board, _ = board_of(document(), ["claude"])
    assert board.state("claude") == Breaker()


def test_each_write_is_counted():
    assert Board({"gpt": OPEN}, 7).changed({"claude": OPEN}) == Board({"gpt": OPEN, "claude": OPEN}, 8)


FOREIGN = [
    pytest.param({}, id="empty"),
    pytest.param({"colour": "blue"}, id="other fields"),
    pytest.param(document(schema=0), id="another layout"),
    pytest.param(document(schema="1"), id="text for the layout"),
    pytest.param(document(targets=[]), id="a list of targets"),
    pytest.param(document(saves=-1), id="fewer than no writes"),
    pytest.param(document(saves=True), id="a flag for a count"),
]


@pytest.mark.parametrize("held", FOREIGN)
def test_what_is_not_a_document_of_breakers_reads_as_none(held: dict[str, Any]):
    assert board_of(held, ["gpt"]) == (Board(), "not a document of breakers")


@pytest.mark.parametrize("entry", [None, 7, [], {}, {"phase": "ajar"}, to_document(OPEN) | {"probe": 1}])
def test_an_entry_that_cannot_be_read_is_named_and_the_others_are_read(entry: Any):
    board, why = board_of(document(targets={"gpt": to_document(OPEN), "claude": entry}), ["gpt", "claude"])
    assert board.states == {"gpt": OPEN}
    assert why is not None
    assert why.startswith("claude: ")


def full(number: int) -> Breaker:
    """As large as a state gets with a threshold of a hundred."""
    order = Manual("isolate", "kim", "x" * 200, 1e9)
    run = tuple(1e9 + n / 7 for n in range(100))
    return Breaker(generation=number, manual=order, last_error="E" * 80, tally=Tally((), run, 1e9 + 1 / 3))


def test_it_never_outgrows_a_stores_document():
    board = Board(
        {f"target-{n}": full(n) for n in range(400)}, 1, {f"theirs-{n}": {"x": "y" * 900} for n in range(400)}
    )
    written = document_of(board)
    assert len(json.dumps(written, separators=(",", ":"))) <= LARGEST
    assert set(written["targets"]) == set(board.states), "what others name goes first, then the counts"
    read, _ = board_of(written, list(board.states))
    assert {state.generation for state in read.states.values()} == set(range(400))
    assert all(state.manual for state in read.states.values())
