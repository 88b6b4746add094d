"""The keeper of limits and usage: one instance by itself, and several that share a store."""

from __future__ import annotations

import asyncio
import random
import signal
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from azure.data.tables.aio import TableClient

from routing import config
from routing.bookkeeping import LIVING, Bookkeeping
from routing.cloud import usage_table, worker
from routing.cloud.usage_table import UsageTable
from routing.documents import StoreUnavailable
from routing.errors import LimitExceeded, Misconfigured
from routing.ledger import Budget, Ledger, LedgerSettings, Rules
from routing.ledger_store import InMemoryRows, Nowhere, Page
from routing.limits import BudgetSettings, CallerLimits, day_of
from routing.usage import FOLDED, LINES_A_ROW, MOST_LINES, Book, Counts, Of, Others, lines_of
from tests import cranked
from tests.conftest import Clock

SETTINGS = LedgerSettings(flush_seconds=2.0)
NOON = 1_700_049_600.0  # a Wednesday
OF = Of("app", "gpt", "general", "chat")


def budget(usd: float = 1.0, **more: Any) -> Rules:
    return Rules(budgets=(Budget("caller app", BudgetSettings(usd, **more), frozenset(["app"])),))


def alone(rules: Rules, clock: Clock) -> Ledger:
    return Ledger(rules, SETTINGS, clock)


def pay(ledger: Ledger, micro_usd: int, caller: str = "app") -> None:
    """A whole request that costs what was set aside."""
    ledger.admit(caller, tokens=0, stream=False)
    ledger.reserve(caller, micro_usd)
    settle(ledger, micro_usd, reserved=micro_usd, caller=caller)


def settle(ledger: Ledger, micro_usd: int, *, reserved: int = 0, caller: str = "app", **more: Any) -> None:
    given = {"tokens": 0, "stream": False, **more}
    ledger.settle(caller, OF._replace(caller=caller), Counts(1, micro_usd=micro_usd), reserved=reserved, **given)


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


class TestAlone:
    def test_requests_of_a_minute(self, clock: Clock):
        ledger = alone(Rules({"app": CallerLimits(requests_per_minute=2)}), clock)
        told = [ledger.admit("app", tokens=9, stream=False) for _ in range(2)]
        assert [each["x-ratelimit-remaining-requests"] for each in told] == ["1", "0"]
        assert told[1]["x-ratelimit-reset-requests"] == "60.000s"
        clock.advance(10)
        with pytest.raises(LimitExceeded) as refused:
            ledger.admit("app", tokens=9, stream=False)
        assert refused.value.retry_after == pytest.approx(20)
        assert refused.value.headers["x-ratelimit-limit-requests"] == "2"
        clock.advance(20)
        ledger.admit("app", tokens=9, stream=False)
        ledger.admit("other", tokens=9, stream=False)

    def test_tokens_of_a_minute_are_guessed_first_and_counted_later(self, clock: Clock):
        ledger = alone(Rules({"app": CallerLimits(tokens_per_minute=600)}), clock)
        ledger.admit("app", tokens=100, stream=False)
        ledger.settle("app", OF, Counts(1, 0, 0, 80, 920), tokens=100, reserved=0, stream=False)
        with pytest.raises(LimitExceeded) as refused:
            ledger.admit("app", tokens=100, stream=False)
        assert refused.value.retry_after == pytest.approx(50)
        with pytest.raises(LimitExceeded) as refused:
            ledger.admit("app", tokens=601, stream=False)
        assert (refused.value.retry_after, refused.value.code) == (None, "request_too_large_for_limit")

    def test_a_refused_request_uses_nothing(self, clock: Clock):
        ledger = alone(Rules({"app": CallerLimits(requests_per_minute=5, tokens_per_minute=100)}), clock)
        ledger.admit("app", tokens=100, stream=False)
        for _ in range(10):
            with pytest.raises(LimitExceeded):
                ledger.admit("app", tokens=100, stream=False)
        clock.advance(60)
        assert ledger.admit("app", tokens=100, stream=False)["x-ratelimit-remaining-requests"] == "4"

    def test_open_streams(self, clock: Clock):
        ledger = alone(Rules({"app": CallerLimits(max_streams=2)}), clock)
        for _ in range(2):
            ledger.admit("app", tokens=0, stream=True)
        ledger.admit("app", tokens=0, stream=False)
        with pytest.raises(LimitExceeded, match="2 streams"):
            ledger.admit("app", tokens=0, stream=True)
        settle(ledger, 0, stream=True)
        ledger.admit("app", tokens=0, stream=True)

    def test_a_budget_is_named_with_its_reset_and_begins_anew(self, clock: Clock):
        ledger = alone(budget(1.0), clock)
        pay(ledger, 1_000_000)
        with pytest.raises(
            LimitExceeded, match=r"caller app, 1 USD per day, is used up; it resets at 2023-11-16"
        ) as no:
            ledger.reserve("app", 1)
        assert (no.value.code, no.value.retry_after) == ("budget_exceeded", 43_200)
        assert ledger.reserve("app", 0)  # what is free needs none, and still hears of it
        clock.advance(43_200)
        pay(ledger, 1_000_000)

    @pytest.mark.parametrize(("per", "days"), [("week", 3), ("month", 14)])
    def test_a_longer_budget_remembers_the_days_before(self, clock: Clock, per: Any, days: int):
        ledger = alone(budget(1.0, per=per), clock)
        pay(ledger, 600_000)
        clock.advance(86_400)
        pay(ledger, 300_000)
        with pytest.raises(LimitExceeded) as refused:
            ledger.reserve("app", 200_000)
        assert refused.value.retry_after == days * 86_400 + 43_200
        clock.advance(refused.value.retry_after)
        pay(ledger, 1_000_000)

    def test_the_worst_case_is_set_aside_and_given_back(self, clock: Clock):
        ledger = alone(budget(1.0), clock)
        ledger.admit("app", tokens=0, stream=False)
        ledger.reserve("app", 900_000)
        with pytest.raises(
            LimitExceeded, match=r"has 0.100000 USD left, and this request may cost 0.200000"
        ) as refused:
            ledger.reserve("app", 200_000)
        assert refused.value.retry_after == 2.0, "what is set aside may be free again soon"
        settle(ledger, 1_000, reserved=900_000)
        ledger.reserve("app", 999_000)

    def test_a_group_pays_together(self, clock: Clock):
        ledger = alone(Rules(budgets=(Budget("group lab", BudgetSettings(1.0), frozenset("ab")),)), clock)
        pay(ledger, 600_000, "a")
        with pytest.raises(LimitExceeded, match="group lab"):
            ledger.reserve("b", 500_000)
        pay(ledger, 5_000_000, "c")
        pay(ledger, 400_000, "b")

    def test_a_warning_comes_in_time_and_is_logged_once(self, clock: Clock, caplog: pytest.LogCaptureFixture):
        ledger = alone(budget(1.0, warn_at=0.5), clock)
        pay(ledger, 499_999)
        assert ledger.reserve("app", 0) == ""
        pay(ledger, 1)
        told = [ledger.reserve("app", 0) for _ in range(3)]
        assert told == ["caller app: 50% of 1 USD per day; resets at 2023-11-16T00:00:00Z"] * 3
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    def test_a_target_has_a_limit_of_its_own(self, clock: Clock):
        ledger = alone(Rules(targets={"gpt": CallerLimits(requests_per_minute=1, tokens_per_minute=60)}), clock)
        assert ledger.busy("gpt", 10) is None
        ledger.asked("gpt", 10)
        seconds, why = ledger.busy("gpt", 10) or (0.0, "")
        assert (seconds, why) == (60, "its limit of 1 requests per minute is reached")
        clock.advance(60)
        ledger.wrote("gpt", 120)
        assert ledger.busy("gpt", 10) == (70, "its limit of 60 tokens per minute is reached")
        assert ledger.busy("llama", 10) is None


class Away(InMemoryRows):
    """A store that can be away."""

    here = True

    async def put(self, partition: str, row: str, document: Mapping[str, Any]) -> None:
        self._check()
        await super().put(partition, row, document)

    async def read(self, partition: str, mark: str | None = None) -> Page:
        self._check()
        return await super().read(partition, mark)

    def _check(self) -> None:
        if not self.here:
            raise StoreUnavailable("away")


class Fleet:
    """Ledgers of several instances over one store; their turns are taken by hand."""

    def __init__(self, rules: Rules, clock: Clock, count: int) -> None:
        self.rows, self.clock, self.rules = Away(), clock, rules
        self.members = [self.member() for _ in range(count)]

    def member(self) -> tuple[Ledger, Bookkeeping]:
        ledger = Ledger(self.rules, SETTINGS, self.clock, alone=False)
        books = Bookkeeping(ledger, self.rows, SETTINGS, self.clock)
        ledger.changed = lambda: None  # no task of its own
        return ledger, books

    async def turn(self, times: int = 1, seconds: float = 2.0) -> None:
        for _ in range(times):
            for _, books in self.members:
                await books.step()
            self.clock.advance(seconds)

    @property
    def ledgers(self) -> list[Ledger]:
        return [ledger for ledger, _ in self.members]


class TestTogether:
    async def test_what_one_spends_the_others_know_after_a_turn(self, clock: Clock):
        fleet = Fleet(budget(1.0), clock, 2)
        one, two = fleet.ledgers
        await fleet.turn(4)
        pay(one, 250_000)
        await fleet.turn(4)
        pay(one, 250_000)
        await fleet.turn(4)
        with pytest.raises(LimitExceeded, match=r"0.500000 USD left"):
            two.reserve("app", 600_000)

    async def test_what_is_set_aside_counts_everywhere_until_its_instance_is_dead(self, clock: Clock):
        fleet = Fleet(budget(1.0), clock, 2)
        one, two = fleet.ledgers
        await fleet.turn(4)
        one.admit("app", tokens=0, stream=False)
        one.reserve("app", 900_000)
        await fleet.turn(2)
        with pytest.raises(LimitExceeded):
            two.reserve("app", 200_000)
        dead = fleet.members.pop(0)
        await fleet.turn(6)
        two.reserve("app", 200_000)
        assert dead[0].fleet() == 2

    async def test_writing_the_same_row_again_counts_nothing_twice(self, clock: Clock):
        fleet = Fleet(budget(1.0), clock, 2)
        one, two = fleet.ledgers
        pay(one, 30_000)
        for _ in range(5):
            one.book.unwrite([(day_of(clock()), 0)])
            await fleet.turn()
        assert two.others.spent(day_of(clock()), "app") == 30_000
        lines, complete = await fleet.members[1][1].usage([day_of(clock())])
        assert [(line.of, line.counts.requests) for line in lines] == [(OF, 1)]
        assert complete

    async def test_a_lost_write_is_made_up_for(self, clock: Clock):
        fleet = Fleet(budget(1.0), clock, 2)
        await fleet.turn()
        fleet.rows.here = False
        pay(fleet.ledgers[0], 10_000)
        await fleet.turn(2)
        assert fleet.ledgers[0].book.unwritten
        fleet.rows.here = True
        await fleet.turn()
        assert fleet.ledgers[1].others.spent(day_of(clock()), "app") == 10_000

    async def test_while_the_store_is_away_each_spends_its_share_of_what_was_left(self, clock: Clock):
        fleet = Fleet(budget(1.0), clock, 4)
        await fleet.turn(4)
        fleet.rows.here = False
        spent = 0
        for ledger in fleet.ledgers * 50:
            try:
                pay(ledger, 10_000)
            except LimitExceeded:
                continue
            spent += 10_000
            await fleet.turn(1, 1.0) if spent % 200_000 == 0 else None
        assert 1_000_000 - 4 * 10_000 <= spent <= 1_000_000 + 4 * 10_000

    async def test_where_turns_are_late_less_is_given_out_before_the_others_have_heard_of_it(self, clock: Clock):
        fleet = Fleet(budget(), clock, 2)
        await fleet.turn(4)
        assert [ledger.horizon for ledger in fleet.ledgers] == [4.0, 4.0]
        await fleet.turn(2, seconds=7.0)
        assert [ledger.horizon for ledger in fleet.ledgers] == [7.0, 7.0]
        one = fleet.ledgers[0]
        pay(one, 600_000)
        await fleet.turn(1, seconds=6.0)
        with pytest.raises(LimitExceeded):  # the other may have had its turn just before this word
            pay(one, 200_000)
        await fleet.turn(1, seconds=6.0)
        pay(one, 200_000)
        await fleet.turn(20)
        assert [ledger.horizon for ledger in fleet.ledgers] == [4.0, 4.0]

    async def test_a_store_that_is_away_is_no_reason_to_believe_it_slow(self, clock: Clock):
        fleet = Fleet(budget(), clock, 2)
        await fleet.turn(4)
        fleet.rows.here = False
        await fleet.turn(3, seconds=60.0)
        fleet.rows.here = True
        await fleet.turn(2)
        assert [ledger.horizon for ledger in fleet.ledgers] == [4.0, 4.0]

    async def test_an_instance_that_knows_nothing_yet_spends_a_hundredth(self, clock: Clock):
        ledger, books = Fleet(budget(1.0), clock, 1).members[0]
        pay(ledger, 9_000)
        pay(ledger, 2_000)
        with pytest.raises(LimitExceeded, match="has not been read") as refused:
            ledger.reserve("app", 1_000)
        assert refused.value.code == "budget_unknown"
        await books.step()
        clock.advance(4.0)
        ledger.reserve("app", 800_000)

    @pytest.mark.parametrize("seed", range(8))
    async def test_however_they_take_turns_the_budget_holds_but_for_a_request_each(self, clock: Clock, seed: int):
        """Requests of any cost that take a while, turns at odd times, instances whose turn fails."""
        lots, dearest, count = random.Random(seed), 40_000, 5
        fleet = Fleet(budget(1.0), clock, count)
        await fleet.turn(4)
        under_way: list[tuple[Ledger, int]] = []
        due = [clock() + lots.uniform(0, 2) for _ in range(count)]
        for _ in range(1_500):
            clock.advance(0.02)
            for place, (_, books) in enumerate(fleet.members):
                if clock() >= due[place]:
                    fleet.rows.here = lots.random() > 0.1
                    await books.step()
                    fleet.rows.here = True
                    due[place] = clock() + lots.uniform(1.2, 1.8)
            ledger, cost = lots.choice(fleet.ledgers), lots.randint(1, dearest)
            try:
                ledger.reserve("app", cost)
                under_way.append((ledger, cost))
            except LimitExceeded:
                pass
            if under_way and lots.random() < 0.5:
                settled, cost = under_way.pop(lots.randrange(len(under_way)))
                settle(settled, int(cost * lots.random()), reserved=cost)
        for settled, cost in under_way:
            settle(settled, cost, reserved=cost)
        spent = sum(ledger.book.spent(day_of(clock()), "app") for ledger in fleet.ledgers)
        assert 700_000 < spent <= 1_000_000 + count * dearest

    async def test_requests_of_a_minute_are_those_of_all(self, clock: Clock):
        fleet = Fleet(Rules({"app": CallerLimits(requests_per_minute=60)}), clock, 3)
        await fleet.turn(4)
        admitted, began = 0, clock()
        while clock() < began + 120:
            for ledger in fleet.ledgers * 4:
                try:
                    ledger.admit("app", tokens=0, stream=False)
                    admitted += 1
                except LimitExceeded:
                    pass
            await fleet.turn(1, 1.5)
        assert 150 <= admitted <= 60 + 120 + 3

    async def test_a_target_gets_the_share_of_this_instance(self, clock: Clock):
        fleet = Fleet(Rules(targets={"gpt": CallerLimits(requests_per_minute=60)}), clock, 3)
        await fleet.turn(8)
        asked = 0
        while fleet.ledgers[0].busy("gpt", 0) is None:
            fleet.ledgers[0].asked("gpt", 0)
            asked += 1
        assert asked == 20

    async def test_streams_of_others_count(self, clock: Clock):
        fleet = Fleet(Rules({"app": CallerLimits(max_streams=2)}), clock, 2)
        await fleet.turn(4)
        for _ in range(2):
            fleet.ledgers[0].admit("app", tokens=0, stream=True)
            await fleet.turn(3)
        with pytest.raises(LimitExceeded, match="2 streams"):
            fleet.ledgers[1].admit("app", tokens=0, stream=True)

    async def test_a_month_is_read_from_the_rows_of_the_days_before(self, clock: Clock):
        fleet = Fleet(budget(1.0, per="month"), clock, 1)
        for _ in range(3):
            pay(fleet.ledgers[0], 200_000)
            await fleet.turn(1, 86_400)
        later, books = fleet.member()
        await books.step()
        with pytest.raises(LimitExceeded, match=r"0.400000 USD left"):
            later.reserve("app", 500_000)

    @pytest.mark.parametrize(
        "document",
        [{}, {"lines": 7}, {"lines": [7, [1], ["a"] * 11, ["a", "b", "c", "d", -1, 0, 0, 0, 0, 0, 0]]}],
        ids=["empty", "no list", "no lines"],
    )
    async def test_rows_and_words_that_are_not_ours_are_left_out(self, clock: Clock, document: Any):
        fleet = Fleet(budget(1.0), clock, 1)
        fleet.rows.rows[day_of(clock()), "strange"] = fleet.rows.rows[LIVING, "strange"] = document
        fleet.rows.changed |= {(day_of(clock()), "strange"): 0, (LIVING, "strange"): 0}
        await fleet.turn()
        assert fleet.ledgers[0].fleet() == 1
        pay(fleet.ledgers[0], 1_000_000)

    async def test_the_word_of_the_dead_is_removed(self, clock: Clock):
        fleet = Fleet(budget(1.0), clock, 2)
        await fleet.turn()
        dead = fleet.members.pop()[1].holder
        clock.advance(3_601)
        await fleet.turn()
        assert (LIVING, dead) not in fleet.rows.rows


class TestBook:
    def test_names_may_be_anything(self):
        book, names = Book(), Of("a/b#?\\", "\u0000\n", "x" * 500, "ключ'=1")
        book.add("2026-01-01", names, Counts(1))
        assert [line.of for line in lines_of("2026-01-01", book.row("2026-01-01", 0))] == [names]

    def test_memory_is_bounded_and_no_money_is_lost(self):
        book = Book()
        for number in range(MOST_LINES + 50):
            book.add("2026-01-01", OF._replace(route=f"r{number}"), Counts(1, micro_usd=1))
        lines = list(book.lines("2026-01-01"))
        assert len(lines) == MOST_LINES + 1
        assert (lines[-1].of.route, lines[-1].counts.requests) == (FOLDED, 50)
        assert book.spent("2026-01-01", "app") == MOST_LINES + 50
        for day in range(1, 29):
            for month in ("02", "03"):
                book.add(f"2026-{month}-{day:02}", OF, Counts(1))
        assert list(book.lines("2026-01-01")) == []

    def test_a_row_is_written_only_when_a_line_of_it_changed(self):
        book = Book()
        for number in range(LINES_A_ROW + 1):
            book.add("2026-01-01", OF._replace(route=f"r{number}"), Counts(1))
        book.written(book.unwritten)
        book.add("2026-01-01", OF._replace(route=f"r{LINES_A_ROW}"), Counts(1))
        assert book.unwritten == {("2026-01-01", 1)}
        of = ["app", "gpt", "general", f"r{LINES_A_ROW}"]
        assert book.row("2026-01-01", 1)["lines"] == [[*of, 2, 0, 0, 0, 0, 0, 0, 0]]

    def test_the_sum_over_rows_follows_their_latest_values(self):
        others = Others()
        for micro_usd in (5, 7):
            others.take("2026-01-01", {"a-000": {"lines": [[*OF, 1, 0, 0, 0, 0, micro_usd, 0]]}})
        others.take("2026-01-01", {"b-000": {"lines": [[*OF, 1, 0, 0, 0, 0, 1, 0]]}})
        assert others.spent("2026-01-01", "app") == 8


class TestTask:
    """The background task, with a clock that jumps from one timer to the next."""

    def run(self, rules: Rules, work: Any) -> InMemoryRows:
        rows = InMemoryRows()

        async def begin() -> None:
            clock = asyncio.get_running_loop().time
            ledger = Ledger(rules, SETTINGS, clock, alone=False)
            books = Bookkeeping(ledger, rows, SETTINGS, clock, lambda: 0.5)
            await work(ledger, books, rows)

        cranked.run(begin())
        return rows

    def test_usage_is_written_within_seconds_and_idleness_writes_nothing(self):
        async def work(ledger: Ledger, books: Bookkeeping, rows: InMemoryRows) -> None:
            pay(ledger, 5)
            await asyncio.sleep(2.0)
            first = rows.writes
            assert len(rows.rows) == 1
            pay(ledger, 5)
            await asyncio.sleep(2.0)
            await asyncio.sleep(3_600)
            assert (first, rows.writes) == (1, 2)
            pay(ledger, 5)
            await asyncio.sleep(0.1)
            assert rows.writes == 3
            await books.close()

        self.run(Rules(), work)

    def test_an_idle_instance_takes_its_word_back_and_says_it_again(self):
        async def work(ledger: Ledger, books: Bookkeeping, rows: InMemoryRows) -> None:
            words = lambda: [key for key in rows.rows if key[0] == LIVING]  # noqa: E731
            await books.warm()
            assert len(words()) == 1
            await asyncio.sleep(60)
            quiet = rows.writes
            assert words() == []
            await asyncio.sleep(3_600)
            assert rows.writes == quiet
            pay(ledger, 5)
            await asyncio.sleep(0.1)
            assert len(words()) == 1
            await books.close()
            assert words() == []

        self.run(budget(1.0), work)

    @pytest.mark.parametrize("how", ["closed", "the loop ends"])
    def test_the_end_writes_what_is_left(self, how: str):
        async def work(ledger: Ledger, books: Bookkeeping, rows: InMemoryRows) -> None:
            pay(ledger, 5)
            await asyncio.sleep(0.1)
            pay(ledger, 6)
            if how == "closed":
                await books.close()

        rows = self.run(budget(1.0), work)
        ((key, document),) = rows.rows.items()
        assert document["lines"][0][9] == 11
        assert key[0] != LIVING

    def test_a_long_stream_keeps_its_instance_among_the_living(self):
        async def work(ledger: Ledger, books: Bookkeeping, rows: InMemoryRows) -> None:
            ledger.admit("app", tokens=0, stream=True)
            await asyncio.sleep(600)
            assert [key for key in rows.rows if key[0] == LIVING]
            settle(ledger, 5, stream=True)
            await asyncio.sleep(60)
            assert not [key for key in rows.rows if key[0] == LIVING]
            await books.close()

        self.run(budget(1.0), work)

    def test_in_a_hurry_it_writes_at_once(self):
        async def work(ledger: Ledger, books: Bookkeeping, rows: InMemoryRows) -> None:
            pay(ledger, 5)
            await asyncio.sleep(0.1)
            pay(ledger, 5)
            books.hurry()
            await asyncio.sleep(0.01)
            pay(ledger, 5)
            await asyncio.sleep(0.25)
            assert rows.writes == 3
            await books.close()

        self.run(Rules(), work)

    def test_a_store_that_is_away_is_asked_less_and_less_and_costs_nobody_a_wait(self):
        asked = 0

        class Silent(Nowhere):
            async def put(self, partition: str, row: str, document: Mapping[str, Any]) -> None:
                nonlocal asked
                asked += 1
                await asyncio.sleep(3_600)

        async def begin() -> None:
            clock = asyncio.get_running_loop().time
            ledger = Ledger(Rules(), SETTINGS, clock, alone=False)
            books = Bookkeeping(ledger, Silent(), SETTINGS, clock, lambda: 0.5)
            pay(ledger, 5)
            await asyncio.sleep(600)
            assert 8 <= asked <= 25
            await books.close()

        cranked.run(begin())


class TestTable:
    """The rows in a real table service."""

    @pytest.fixture
    async def table(self, azurite: str) -> AsyncIterator[UsageTable]:
        table = UsageTable(azurite, f"u{uuid.uuid4().hex}")
        yield table
        await table.close()

    async def test_a_row_is_written_over_read_and_dropped(self, table: UsageTable):
        assert (await table.read("2026-01-01"))[0] == {}
        for number in (1, 2):
            await table.put("2026-01-01", "a-000", {"lines": [number]})
        await table.put("2026-01-02", "a-000", {"lines": []})
        assert (await table.read("2026-01-01"))[0] == {"a-000": {"lines": [2]}}
        for _ in range(2):
            await table.drop("2026-01-01", "a-000")
        assert (await table.read("2026-01-01"))[0] == {}

    @pytest.mark.parametrize("name", ["a/b\\c#d?e", "\u0000\n\t", "it's", "ключ", "=41", "x" * 200])
    async def test_keys_may_be_anything(self, table: UsageTable, name: str):
        await table.put(name, name, {"lines": [["a'/#", "\u0000"]]})
        assert (await table.read(name))[0] == {name: {"lines": [["a'/#", "\u0000"]]}}
        await table.drop(name, name)
        assert (await table.read(name))[0] == {}

    async def test_a_mark_leads_to_what_changed_later(self, table: UsageTable, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(usage_table, "MARGIN", timedelta(0))
        await table.put("day", "old", {"n": 1})
        _, mark = await table.read("day")
        await asyncio.sleep(0.01)  # the service's timestamps have to differ
        await table.put("day", "new", {"n": 2})
        rows, later = await table.read("day", mark)
        assert rows["new"] == {"n": 2}
        assert later is not None
        assert later > (mark or "")
        assert list((await table.read("day", later))[0]) == ["new"]
        assert (await table.read("day", later))[1] == later

    async def test_a_large_row_survives(self, table: UsageTable):
        row = {"lines": [["x" * 63] * 4 + [10**12] * 7] * LINES_A_ROW}
        await table.put("day", "large", row)
        assert (await table.read("day"))[0] == {"large": row}

    async def test_a_foreign_entity_reads_as_empty(self, table: UsageTable, azurite: str):
        await table.put("day", "ours", {"n": 1})
        async with TableClient.from_connection_string(azurite, table._table) as raw:
            await raw.create_entity({"PartitionKey": "day", "RowKey": "strange", "body0": 7, "bodyx": "y"})
        assert (await table.read("day"))[0] == {"ours": {"n": 1}, "strange": {}}

    async def test_a_service_that_is_away_is_told_as_such(self):
        nowhere = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;TableEndpoint=http://127.0.0.1:9/a;"
        table = UsageTable(nowhere, "usage")
        for work in (table.put("a", "b", {}), table.read("a"), table.drop("a", "b")):
            with pytest.raises(StoreUnavailable):
                await work
        await table.close()


A_CALLER = '[callers.a]\nkey = "env:A"\n'
REFUSED = [
    pytest.param(A_CALLER + "requests_per_minute = 0", "callers.a.requests_per_minute", id="none"),
    pytest.param(A_CALLER + "budget = { usd = 0 }", "callers.a.budget.usd", id="no money"),
    pytest.param(
        '[callers.a]\nkey = "env:A"\nbudget = { usd = 1, per = "hour" }', "callers.a.budget.per", id="an hour"
    ),
    pytest.param(
        '[callers.a]\nkey = "env:A"\nbudget = { usd = 1, warn_at = 2 }', "callers.a.budget.warn_at", id="warn"
    ),
    pytest.param(A_CALLER + "budget = { dollars = 1 }", "callers.a.budget.usd: is missing", id="key"),
    pytest.param("[groups.lab]\nbudget = { usd = 1 }", 'groups.lab: no group "lab"', id="a group of nobody"),
    pytest.param("[ledger]\nflush_seconds = 0", "ledger.flush_seconds", id="no pause"),
    pytest.param("[ledger]\nflush = 1", "ledger.flush: unknown key", id="unknown"),
]


@pytest.mark.parametrize(("text", "told"), REFUSED)
def test_limits_that_make_no_sense_are_refused_with_their_place(text: str, told: str):
    with pytest.raises(Misconfigured) as refused:
        config.parse(text, {})
    assert [error for error in refused.value.errors if error.startswith(told)], refused.value.errors


class Server:
    """A server that handles signals as uvicorn's does."""

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened

    def handle_exit(self, number: int, frame: Any) -> None:
        self._happened.append("signal")

    async def shutdown(self, sockets: Any = None) -> None:
        self._happened.append("last answer")


async def test_a_process_that_is_told_to_end_hurries_and_finishes_after_its_servers_last_answer():
    happened: list[str] = []
    server = Server(happened)
    kept = signal.signal(signal.SIGTERM, server.handle_exit)

    async def last() -> None:
        happened.append("last")
        raise OSError("the table is away")

    try:
        worker.before_the_end(lambda: happened.append("hurry"), last)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        await server.shutdown(sockets=None)
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert happened in (["signal", "hurry", "last answer", "last"], ["hurry", "signal", "last answer", "last"])


async def test_where_nobody_handles_the_signal_it_ends_the_process_as_ever():
    kept = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        worker.before_the_end(_never, _never_at_last)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, kept)


def _never() -> None:
    raise AssertionError


async def _never_at_last() -> None:
    raise AssertionError


@pytest.mark.parametrize("server", [None, object(), Ledger], ids=["none", "another", "class"])
def test_a_server_that_looks_different_is_left_alone(server: Any):
    worker.after_shutdown(server, _never_at_last)
    assert not hasattr(getattr(server, "shutdown", None), "__wrapped__")
