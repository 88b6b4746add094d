"""Answers that instances share: sealed, in bounded time, and never at a request's cost."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables.aio import TableClient

from local import azurite as azurite_service
from local.providers import StandIn, serve
from routing import sealed
from routing.cache import Kept, key_of
from routing.cloud.answer_table import AnswerTable
from routing.documents import LARGEST, StoreUnavailable, TooLarge
from routing.features import AskedFacts
from routing.sealed import seal, unseal
from routing.shared_answers import LONGEST_REST, MOST_WRITES, SharedAnswers
from routing.types import (
    Attempt,
    Caller,
    Choice,
    Cost,
    Decision,
    Estimate,
    Exclusion,
    Outcome,
    Plan,
    Refused,
    Task,
    Usage,
)
from routing.wiring import ANSWER_TABLE
from tests.conftest import Clock, unavailable
from tests.fleet import ADMIN_KEY, CALLERS, Member, Tables, fleet, tables, until
from tests.routes_for import CHAT_PATH, HELLO, heard, routes_for

KEY = key_of({"messages": HELLO}, Caller("app"))
NAME, SECRET = KEY[:64], bytes.fromhex(KEY[64:])


def decision() -> Decision:
    """One with something in every field."""
    task = Task("planning", 0.9, "label")
    choice = Choice("a", 0.5, "first", 100, Estimate(1.5, 1.0, 0.1), 0.3)
    away = Exclusion("b", "open", Refused("b", "isolated", float("inf")))
    plan = Plan("chat", "task", task, (choice,), (away,), "note")
    facts = AskedFacts(
        task, 10, 20, needs=frozenset(["tools"]), cost={"a": Estimate(1.5, 1.0, 0.1)}, deny=frozenset("x")
    )
    attempt = Attempt("b", 1, Outcome.FAULT, 0.1, "Unavailable", Usage(1, 2), Cost(3, "v"))
    return Decision(
        "dec_1",
        1.0,
        "app",
        "chat",
        plan,
        facts,
        (attempt,),
        "a",
        Usage(10, 20, estimated=True),
        Cost(7, "v"),
        seconds=0.5,
    )


def kept(*pieces: bytes) -> Kept:
    return Kept(pieces or (b'{"choices":[]}',), decision(), "model", ("field",), 100)


class TestSealing:
    @pytest.mark.parametrize(
        "pieces", [(b"\xff\x00\xc3",), (b"data: a\n\n", "data: \u00e9\U0001f600\n\n".encode()), (b"",)]
    )
    def test_what_was_sealed_is_all_there_again(self, pieces: tuple[bytes, ...]):
        answer = kept(*pieces)
        assert unseal(seal(answer, SECRET, NAME), SECRET, NAME) == answer

    def test_nobody_can_read_it(self):
        text = seal(kept(b"the patient's name is Smith"), SECRET, NAME)
        assert "Smith" not in text
        assert text != seal(kept(b"the patient's name is Smith"), SECRET, NAME), "equal answers look different"

    @pytest.mark.parametrize(
        ("key", "name"), [(bytes(32), NAME), (SECRET, "0" * 64)], ids=["another request", "another place"]
    )
    def test_it_opens_nowhere_else(self, key: bytes, name: str):
        assert unseal(seal(kept(), SECRET, NAME), key, name) is None

    @pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "A" * 400, "\u00fc"])
    def test_what_was_not_sealed_is_no_answer(self, text: str):
        assert unseal(text, SECRET, NAME) is None

    def test_what_was_changed_is_no_answer(self):
        text = seal(kept(), SECRET, NAME)
        assert unseal(text[:-8] + ("B" if text[-8] == "A" else "A") + text[-7:], SECRET, NAME) is None

    def test_an_answer_of_another_build_is_none(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(sealed, "asdict", lambda _: {"id": "dec_1"})
        assert unseal(seal(kept(), SECRET, NAME), SECRET, NAME) is None

    def test_what_unpacks_to_more_than_any_answer_is_none(self, monkeypatch: pytest.MonkeyPatch):
        text = seal(kept(b"x" * 10_000), SECRET, NAME)
        monkeypatch.setattr(sealed, "LONGEST", 1_000)
        assert unseal(text, SECRET, NAME) is None

    def test_the_name_does_not_tell_the_key(self):
        one, other = key_of({"a": 1}, Caller("app")), key_of({"a": 2}, Caller("app"))
        assert len({one[:64], one[64:], other[:64], other[64:]}) == 4


class Shelf:
    """A store in memory that can be away, or hang."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[float, str]] = {}
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0

    async def get(self, name: str) -> tuple[float, str] | None:
        await self._pass()
        return self.rows.get(name)

    async def put(self, name: str, until: float, text: str) -> None:
        await self._pass()
        self.rows[name] = until, text

    async def remove_before(self, at: float) -> int:
        return len([self.rows.pop(name) for name, row in list(self.rows.items()) if row[0] < at])

    async def close(self) -> None:
        self.gate.set()

    async def _pass(self) -> None:
        self.asked += 1
        await self.gate.wait()
        if self.error:
            raise self.error


@pytest.fixture
async def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
async def shared(shelf: Shelf, clock: Clock) -> AsyncIterator[SharedAnswers]:
    answers = SharedAnswers(shelf, clock)
    yield answers
    await answers.close()


LONG = 30.0  # seconds that a look may take where it is not about time


async def written(shared: SharedAnswers) -> None:
    while shared._writes:
        await asyncio.wait(set(shared._writes))


class TestKeeper:
    async def test_another_instance_finds_the_answer_until_its_time_is_over(self, shelf: Shelf, clock: Clock):
        one, other = SharedAnswers(shelf, clock), SharedAnswers(shelf, clock)
        one.put(KEY, kept(), 60)
        await written(one)
        clock.advance(20)
        assert await other.look(KEY, LONG) == (kept(), 40.0)
        clock.advance(40)
        assert await other.look(KEY, LONG) is None
        assert await other.look(key_of({"another": 1}, Caller("app")), LONG) is None
        assert (await one.sweep(), await one.sweep()) == (0, 0)
        clock.advance(1)
        assert (await one.sweep(), await one.sweep()) == (1, 0)

    async def test_the_store_learns_neither_the_answer_nor_its_key(self, shared: SharedAnswers, shelf: Shelf):
        shared.put(KEY, kept(b"secret answer"), 60)
        await written(shared)
        ((name, (_, text)),) = shelf.rows.items()
        assert (name, "secret" in text, KEY[64:] in text) == (NAME, False, False)

    async def test_a_store_that_hangs_is_waited_for_once_and_then_left_alone(
        self, shared: SharedAnswers, shelf: Shelf, clock: Clock, caplog: pytest.LogCaptureFixture
    ):
        shelf.gate.clear()
        for _ in range(3):
            assert await shared.look(KEY, 0.01) is None
        assert shelf.asked == 1
        clock.advance(LONGEST_REST)
        assert await shared.look(KEY, 0.01) is None
        shelf.gate.set()
        clock.advance(LONGEST_REST)
        shared.put(KEY, kept(), 60)
        await written(shared)
        assert await shared.look(KEY, LONG) is not None
        assert [record.levelno for record in caplog.records if record.levelno >= logging.WARNING] == [logging.WARNING]

    async def test_a_store_that_fails_fails_nobody(self, shared: SharedAnswers, shelf: Shelf, clock: Clock):
        shelf.error = StoreUnavailable("away")
        shared.put(KEY, kept(), 60)
        await written(shared)
        assert await shared.look(KEY, LONG) is None
        shelf.error = ZeroDivisionError()
        clock.advance(LONGEST_REST)
        assert await shared.look(KEY, LONG) is None

    async def test_equal_requests_look_together_and_who_leaves_ends_nothing(self, shared: SharedAnswers, shelf: Shelf):
        shared.put(KEY, kept(), 60)
        await written(shared)
        shelf.gate.clear()
        looks = [asyncio.create_task(shared.look(KEY, LONG)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        looks[0].cancel()
        shelf.gate.set()
        assert [found is not None for found in await asyncio.gather(*looks[1:])] == [True] * 4
        assert shelf.asked == 2

    async def test_writes_are_bounded_in_number_and_size(self, shared: SharedAnswers, shelf: Shelf):
        shelf.gate.clear()
        for number in range(MOST_WRITES + 5):
            shared.put(key_of({"n": number}, Caller("app")), kept(), 60)
        shelf.gate.set()
        await written(shared)
        assert len(shelf.rows) == MOST_WRITES
        shared.put(KEY, kept(b"x" * 300_000), 60)
        await written(shared)
        assert NAME not in shelf.rows

    async def test_a_process_that_ends_still_shares_its_answers(self, shelf: Shelf, clock: Clock):
        answers = SharedAnswers(shelf, clock)
        answers.put(KEY, kept(), 60)
        await answers.close()
        assert NAME in shelf.rows

    async def test_without_a_store_nothing_is_shared(self, clock: Clock):
        nowhere = SharedAnswers(None, clock)
        nowhere.put(KEY, kept(), 60)
        assert (await nowhere.look(KEY, LONG), await nowhere.sweep()) == (None, 0)
        await nowhere.close()


@pytest.fixture
async def table(azurite: str) -> AsyncIterator[AnswerTable]:
    made = AnswerTable(azurite, f"Answers{uuid.uuid4().hex[:12]}")
    yield made
    await made.close()


class TestTable:
    async def test_a_row_is_written_over_read_and_removed_when_it_is_old(self, table: AnswerTable):
        assert await table.get(NAME) is None
        await table.put(NAME, 1_700_000_000.5, "one")
        await table.put(NAME, 1_700_000_060.25, "other" * 20_000)
        assert await table.get(NAME) == (1_700_000_060.25, "other" * 20_000)
        for number in range(3):
            await table.put(f"{number}{NAME}", 1_700_000_000.0, "old")
        assert await table.remove_before(1_700_000_030.0) == 3
        assert await table.get(NAME) is not None
        assert await table.remove_before(2e9) == 1
        assert await table.remove_before(2e9) == 0

    async def test_what_does_not_fit_is_refused(self, table: AnswerTable):
        with pytest.raises(TooLarge):
            await table.put(NAME, 1.0, "x" * (LARGEST + 1))

    async def test_a_table_that_is_not_there_has_nothing_to_remove(self, table: AnswerTable):
        assert await table.remove_before(2e9) == 0


@asynccontextmanager
async def scene(folder: Path, **cache: Any) -> AsyncIterator[tuple[list[Member], StandIn, Tables]]:
    """Two processes whose route shares its answers."""
    if reason := azurite_service.unavailable():
        unavailable(reason)
    async with AsyncExitStack() as stack:
        alpha = await stack.enter_async_context(serve(name="alpha"))
        service = await stack.enter_async_context(tables())
        path = folder / "routes.toml"
        route = {"cache": {"seconds": 600, "shared": True, "shared_timeout_ms": 2_000, **cache}}
        path.write_text(routes_for([alpha], callers=CALLERS, route=route))
        members = await stack.enter_async_context(fleet([service.environment] * 2, path))
        yield members, alpha, service


async def rows(service: Tables) -> list[Any]:
    """What the table holds."""
    async with TableClient.from_connection_string(service.environment["ROUTER_TABLES"], ANSWER_TABLE) as client:
        try:
            return [entity async for entity in client.list_entities()]
        except ResourceNotFoundError:
            return []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_what_one_process_was_answered_the_other_knows(stream: bool, tmp_path: Path):
    async with scene(tmp_path) as ((one, other), alpha, service):
        first = await one.ask(stream=stream, user="same")
        (row,) = await until(lambda: rows(service), 20, "the answer is in the table")
        assert heard(alpha) not in str(row)
        answer = await other.ask(stream=stream, user="same")
        assert (answer.headers["x-router-cache"], answer.headers["x-router-target"]) == ("hit", "alpha")
        assert answer.content == first.content
        assert alpha.asked == 1
        assert float(answer.headers["x-router-cost-usd"]) == 0
        another = await other.client.post(
            CHAT_PATH,
            json={"model": "chat", "messages": HELLO, "user": "same", "stream": stream},
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
        )
        assert another.headers["x-router-cache"] == "miss", "who is in no group shares with nobody"


async def test_a_table_that_is_away_costs_a_request_nothing_but_the_answer(tmp_path: Path):
    async with scene(tmp_path, shared_timeout_ms=1) as ((one, _), alpha, service):
        service.kill()
        answers = [await one.ask(user="same"), await one.ask(user="same")]
        assert [answer.headers["x-router-cache"] for answer in answers] == ["miss", "hit"]
        assert alpha.asked == 1
