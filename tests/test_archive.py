"""Decisions that are kept for days: written behind the requests, found from every instance, removed when old."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from routing import archive
from routing.archive import DAY, Archive, DecisionSettings
from routing.cloud.decision_table import DecisionTable, keys_of
from routing.decisions import Decisions, new_id, place_of
from routing.documents import DecisionRow, StoreUnavailable, Wanted
from routing.statistics import Statistics
from routing.types import Attempt, Choice, Decision, Facts, Outcome, Plan, Task, Usage
from tests import cranked
from tests.conftest import ServeApp
from tests.routes_for import KEY, ONCE, PROVIDER_KEY, Stage, routes_for

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()


def decision(at: float = NOON, caller: str = "app", route: str = "auto", **fields: Any) -> Decision:
    plan = Plan(route, "task", Task("planning", 0.5, "why"), (Choice("one", 1, "first"),))
    return Decision(new_id(at), at, caller, route, plan, Facts(plan.task, 1, 1, needs=frozenset(["tools"])), **fields)


def row(at: float, caller: str = "app", route: str = "auto", size: int = 10) -> DecisionRow:
    return DecisionRow(new_id(at), at, caller, route, f'"{at:.3f}{"x" * size}"')


@pytest.fixture
async def table(azurite: str) -> AsyncIterator[DecisionTable]:
    table = DecisionTable(azurite, f"t{uuid.uuid4().hex}")
    yield table
    await table.close()


async def test_an_empty_table_that_nobody_made_is_empty(table: DecisionTable):
    assert await table.get(new_id(NOON)) is None
    assert await table.page(Wanted(10)) == []
    assert await table.remove_before(NOON) == 0


async def test_a_decision_is_found_by_its_id(table: DecisionTable):
    rows = [row(NOON, size=100_000), row(NOON + 1)]
    await table.put(rows)
    await table.put(rows)  # twice is the same
    assert await table.get(rows[0].id) == rows[0].text
    assert await table.page(Wanted(10)) == [rows[1].text, rows[0].text]


async def test_pages_go_back_through_the_days_without_a_gap(table: DecisionTable):
    rows = [row(NOON - hours * 3_600) for hours in range(60)]  # newest first, over four days
    await table.put(rows)
    found: list[str] = []
    after = None
    while page := await table.page(Wanted(7, after=after)):
        found += page
        after = rows[len(found) - 1].id
    assert found == [each.text for each in rows]


async def test_a_page_keeps_to_caller_route_and_time(table: DecisionTable):
    rows = [row(NOON + n, caller=("app", "o'hara")[n % 2], route=("auto", "fast")[n // 2 % 2]) for n in range(8)]
    await table.put(rows)

    async def found(**wanted: Any) -> list[int]:
        texts = await table.page(Wanted(100, **wanted))
        return [n for n in reversed(range(8)) if rows[n].text in texts]

    assert await found(caller="o'hara") == [7, 5, 3, 1]
    assert await found(caller="app", route="fast") == [6, 2]
    assert await found(since=NOON + 2, until=NOON + 4) == [4, 3, 2]
    assert await found(since=NOON + 2, until=NOON + 4, after=rows[4].id) == [3, 2]
    assert await found(since=0.0, until=1e300) == [7, 6, 5, 4, 3, 2, 1, 0]


async def test_whole_days_are_removed_and_later_ones_stay(table: DecisionTable):
    old = [row(NOON - 10 * DAY + n) for n in range(120)]
    middle, new = row(NOON - 2 * DAY), row(NOON)
    await table.put([*old, middle, new])
    assert await table.remove_before(NOON - 3 * DAY) == 120
    assert await table.page(Wanted(200)) == [new.text, middle.text]


async def test_what_is_too_large_for_the_table_does_not_hold_up_the_others(table: DecisionTable):
    await table.put([row(NOON, size=500_000), row(NOON + 1)])
    assert len(await table.page(Wanted(10))) == 1


def test_ids_and_rows_sort_by_time():
    ids = [new_id(at) for at in (NOON - DAY, NOON, NOON + 0.001, NOON + DAY)]
    assert ids == sorted(ids)
    assert sorted(ids, key=place_of) == sorted(ids, key=keys_of) == ids[::-1]


@pytest.mark.parametrize("name", ["dec_" + "f" * 32, "dec_" + "0" * 32])
def test_an_id_that_somebody_made_up_has_a_place_too(name: str):
    assert len(keys_of(name)[0]) == 8


class Shelf:
    """Remembers what was written, and is away when told so."""

    def __init__(self) -> None:
        self.writes: list[list[DecisionRow]] = []
        self.away = False
        self.closed = False

    async def put(self, rows: Sequence[DecisionRow]) -> None:
        await asyncio.sleep(0.01)
        if self.away:
            raise StoreUnavailable("away")
        self.writes.append(list(rows))

    async def get(self, decision_id: str) -> str | None:
        if self.away:
            raise StoreUnavailable("away")
        return next((each.text for batch in self.writes for each in batch if each.id == decision_id), None)

    async def page(self, wanted: Wanted) -> Sequence[str]:
        await asyncio.sleep(3_600)
        return []

    async def remove_before(self, at: float) -> int:
        return int(at)

    async def close(self) -> None:
        self.closed = True


def test_decisions_are_written_together_after_a_moment():
    shelf = Shelf()

    async def run() -> None:
        kept = Archive(shelf, DecisionSettings())
        told = [decision() for _ in range(150)]
        for each in told:
            kept.tell(each)
        await asyncio.sleep(archive.WRITE_SECONDS + 0.1)
        assert [len(batch) for batch in shelf.writes] == [100, 50]
        found = await kept.find(told[-1].id)
        assert found is not None
        assert (found["caller"], found["facts"]["needs"]) == ("app", ["tools"])
        await kept.close()

    cranked.run(run())
    assert shelf.closed


def test_while_the_store_is_away_decisions_wait_and_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "MOST_WAITING", 3)
    shelf = Shelf()
    shelf.away = True

    async def run() -> None:
        kept, told = Archive(shelf, DecisionSettings()), [decision(NOON + n) for n in range(5)]
        for each in told:
            kept.tell(each)
        await asyncio.sleep(10)
        assert (kept.lost, shelf.writes) == (2, [])
        with pytest.raises(StoreUnavailable):
            await kept.find(told[0].id)
        shelf.away = False
        await asyncio.sleep(archive.LONGEST_WAIT)
        assert [each.id for each in shelf.writes[0]] == [each.id for each in told[2:]]
        await kept.close()

    cranked.run(run())


def test_the_end_writes_what_is_left_at_once():
    shelf = Shelf()

    async def run() -> None:
        kept = Archive(shelf, DecisionSettings())
        kept.tell(decision())
        before = asyncio.get_running_loop().time()
        await kept.close()
        assert asyncio.get_running_loop().time() - before < 0.1

    cranked.run(run())
    assert [len(batch) for batch in shelf.writes] == [1]


def test_the_end_does_not_wait_for_a_store_that_is_away():
    shelf = Shelf()
    shelf.away = True

    async def run() -> None:
        kept = Archive(shelf, DecisionSettings())
        kept.tell(decision())
        await kept.close()

    cranked.run(run())
    assert shelf.writes == []


def test_a_page_that_does_not_come_is_said_to_be_incomplete():
    page = cranked.run(Archive(Shelf(), DecisionSettings()).page(Wanted(10)))
    assert (page.bodies, page.complete) == ((), False)


async def test_retention_is_counted_in_days():
    kept = Archive(Shelf(), DecisionSettings(retention_days=2), clock=lambda: 3 * DAY)
    assert await kept.sweep() == DAY


async def test_without_a_table_nothing_is_kept_and_nothing_fails():
    kept = Archive(None, DecisionSettings())
    kept.tell(decision())
    assert await kept.find(new_id(NOON)) is None
    assert (await kept.page(Wanted(10))).complete
    assert await kept.sweep() == 0
    await kept.close()


def test_only_decisions_that_are_complete_are_told():
    told: list[Decision] = []
    decisions = Decisions(tell=(told.append,))
    open_, done = decision(), decision()
    decisions.keep(open_)
    decisions.settled(done)
    assert told == [done]
    assert {each.id for each in decisions.newest()} == {open_.id, done.id}


def test_statistics_count_tasks_targets_fallbacks_and_average_times():
    counted = Statistics(("one", "two"), clock=lambda: 5.0)
    failed = (Attempt("one", 1, Outcome.FAULT, 0.1, "Unavailable"),)
    first = decision(target="two", attempts=failed, usage=Usage(1, 1), seconds=1.0, first_token_seconds=0.5)
    for each in (
        first,
        replace(first, attempts=(), seconds=3.0, first_token_seconds=None),
        replace(first, target=None, error="AllFailed"),
        replace(first, target=None, attempts=(replace(failed[0], error="CallerLeft"),), error="CallerLeft"),
        replace(first, attempts=(), from_cache=True),
    ):
        counted.tell(each)
    assert counted.body() == {
        "since": 5.0,
        "requests": 5,
        "answered": 3,
        "failed": 1,
        "left": 1,
        "from_cache": 1,
        "fallbacks": 1,
        "tasks": {"planning": 5},
        "targets": {
            "one": {
                "answered": 0,
                "failed_attempts": 2,
                "average_seconds": None,
                "average_first_token_seconds": None,
            },
            "two": {
                "answered": 2,
                "failed_attempts": 0,
                "average_seconds": pytest.approx((0.9 + 3.0) / 2),
                "average_first_token_seconds": pytest.approx(0.4),
            },
        },
    }


def test_an_answer_that_broke_off_took_its_own_time():
    counted = Statistics(("one", "two"))
    attempts = (Attempt("one", 1, Outcome.FAULT, 1.0, "Unavailable"), Attempt("two", 2, Outcome.FAULT, 4.0, "BadReply"))
    counted.tell(decision(target="two", attempts=attempts, usage=Usage(1, 1), seconds=5.0, error="BadReply"))
    two = counted.body()["targets"]["two"]
    assert (two["answered"], two["failed_attempts"], two["average_seconds"]) == (1, 1, 4.0)


class Desk:
    """A router with a table; serving it again is another instance, which remembers nothing."""

    def __init__(self, stage: Stage, serve_app: ServeApp, folder: Path, azurite: str) -> None:
        self.stage, self._serve_app, self._azurite = stage, serve_app, azurite
        self._path = folder / "routes.toml"
        callers = {
            "tester": {"key": "env:ROUTER_TEST_CALLER"},
            "kim": {"key": "env:ROUTER_TEST_ADMIN", "role": "admin"},
        }
        self._path.write_text(routes_for([stage.standin(name="one")], route={"retry": ONCE}, callers=callers))

    def another_instance(self) -> None:
        keys = {"ROUTER_TEST_CALLER": KEY, "ROUTER_TEST_PROVIDER": PROVIDER_KEY, "ROUTER_TEST_ADMIN": "admin-key-1"}
        given = {"ROUTER_CONFIG": str(self._path), "ROUTER_TABLES": self._azurite, **keys}
        self.stage.url = self._serve_app(given)

    def get(self, path: str, admin: bool = False) -> Any:
        headers = {"authorization": f"Bearer {'admin-key-1' if admin else KEY}"}
        with self.stage.http(headers=headers) as client:
            return client.get(path)

    def until(self, path: str, status: int = 200) -> Any:
        deadline = time.monotonic() + 60
        while (answer := self.get(path)).status_code != status:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.02)
        return answer


@pytest.fixture
def desk(stage: Stage, serve_app: ServeApp, tmp_path: Path, azurite: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("routing.wiring.DECISION_TABLE", f"t{uuid.uuid4().hex}")
    monkeypatch.setattr(Archive, "pause", 0.01)
    made = Desk(stage, serve_app, tmp_path, azurite)
    made.another_instance()
    return made


def test_another_instance_tells_the_same_of_a_decision(desk: Desk):
    name = desk.stage.ask().headers["x-router-decision-id"]
    here = desk.get(f"/v1/router/decisions/{name}")
    desk.another_instance()
    there = desk.until(f"/v1/router/decisions/{name}")
    assert there.json() == here.json()
    assert "Hello there" not in there.text


def test_pages_hold_the_decisions_of_every_instance(desk: Desk):
    names = []
    for _ in range(2):
        names += [desk.stage.ask(stream=stream).headers["x-router-decision-id"] for stream in (False, True, False)]
        desk.another_instance()
    names += [desk.stage.ask().headers["x-router-decision-id"]]
    listed: list[str] = []
    path = "/v1/router/decisions?limit=3"
    while True:
        page = desk.get(path).json()
        listed += [each["id"] for each in page["data"]]
        assert page["complete"]
        if page["next"] is None:
            break
        path = f"/v1/router/decisions?limit=3&after={page['next']}"
    assert listed == names[::-1]
    lines = desk.get("/v1/router/decisions?limit=3&format=jsonl")
    assert (len(lines.text.splitlines()), lines.headers["x-router-next"]) == (3, names[-3])


def test_callers_see_their_own_and_admins_all_also_of_other_instances(desk: Desk):
    with desk.stage.http(headers={"authorization": "Bearer admin-key-1"}) as client:
        answer = client.post(
            "/v1/chat/completions", json={"model": "chat", "messages": [{"role": "user", "content": "x"}]}
        )
    name = answer.headers["x-router-decision-id"]
    desk.another_instance()
    assert desk.get(f"/v1/router/decisions/{name}").status_code == 404
    assert desk.get(f"/v1/router/decisions/{name}", admin=True).status_code == 200
    assert desk.get("/v1/router/decisions").json()["data"] == []
    assert len(desk.get("/v1/router/decisions?caller=kim", admin=True).json()["data"]) == 1


def test_times_are_numbers_or_written_out_and_what_is_empty_is_left_out(desk: Desk):
    at = desk.get(f"/v1/router/decisions/{desk.stage.ask().headers['x-router-decision-id']}").json()["at"]
    before, after = (datetime.fromtimestamp(at + seconds, UTC).isoformat() for seconds in (-60, 60))
    naive = before.removesuffix("+00:00")
    cases = {
        "caller=&route=&since=&limit=": 1,
        f"since={quote(before)}": 1,
        f"since={naive}&until={quote(after)}": 1,
        f"since={quote(after)}": 0,
        f"until={at - 60}": 0,
        f"since={at}&until={at}": 1,
    }
    found = {query: len(desk.get(f"/v1/router/decisions?{query}").json()["data"]) for query in cases}
    assert found == cases


@pytest.mark.parametrize(
    "query", ["since=yesterday", "since=nan", "until=nan", "since=-1", "since=0001-01-01", "limit=0"]
)
def test_a_query_that_makes_no_sense_is_refused_naming_the_place(desk: Desk, query: str):
    answer = desk.get(f"/v1/router/decisions?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


def test_a_decision_that_nobody_made_is_404(desk: Desk):
    for name in (new_id(NOON), "dec_1", "x" * 600):
        assert desk.get(f"/v1/router/decisions/{name}").status_code == 404


def test_the_status_tells_the_statistics(desk: Desk):
    for stream in (False, True):
        assert desk.stage.ask(stream=stream).status_code == 200
    told = desk.get("/v1/router/status").json()["statistics"]
    assert (told["requests"], told["answered"], told["failed"], told["fallbacks"]) == (2, 2, 0, 0)
    assert told["targets"]["one"]["answered"] == 2
    assert told["targets"]["one"]["average_seconds"] > told["targets"]["one"]["average_first_token_seconds"] / 2 > 0


@pytest.mark.parametrize("serve_app", ["local_host"], indirect=True)
def test_the_timer_removes_old_decisions(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    name = desk.stage.ask().headers["x-router-decision-id"]
    desk.another_instance()
    assert desk.until(f"/v1/router/decisions/{name}").status_code == 200
    later = time.time() + 40 * DAY
    monkeypatch.setattr(Archive, "sweep", lambda self: self._shelf.remove_before(later - 30 * DAY))
    with desk.stage.http() as client:
        assert client.post("/admin/functions/remove_old_decisions", json={}).status_code == 202
    assert desk.get(f"/v1/router/decisions/{name}").status_code == 404
