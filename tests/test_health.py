"""The breakers as requests use them: several instances around one store, on a clock turned by hand."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from routing.board import KEY, board_of
from routing.breaker_state import Breaker, BreakerSettings
from routing.health import Event, Health, HealthSettings
from routing.store import Conflict, InMemoryStore, StoreForbidden, StoreUnavailable, Versioned
from routing.types import Outcome, Refused, Ticket
from tests.conftest import Clock

SETTINGS = BreakerSettings(open_jitter=0.0)


class Watched(InMemoryStore):
    """A store that counts, and that can be away, slow, or behind a wrong clock of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.wrong: Callable[[], Exception] | None = None
        self.seconds = 0.0
        self.saving: Counter[str] = Counter()
        self.most_saving = 0
        self.offset = 0.0

    async def _asked(self, what: str) -> None:
        self.calls[what] += 1
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.wrong:
            raise self.wrong()

    async def load(self, key: str) -> Versioned | None:
        await self._asked("load")
        return await super().load(key)

    async def save(self, key: str, document: Mapping[str, Any], etag: str | None) -> Versioned:
        self.saving[key] += 1
        self.most_saving = max(self.most_saving, self.saving[key])
        try:
            await self._asked("save")
            return await super().save(key, document, etag)
        finally:
            self.saving[key] -= 1


@dataclass
class Fleet:
    """Instances that share a store and, if nobody changes that, a clock."""

    clock: Clock
    store: Watched = field(default_factory=Watched)
    events: list[tuple[int, Event]] = field(default_factory=list)
    members: list[Health] = field(default_factory=list)
    settings: BreakerSettings = SETTINGS

    def join(self, clock: Callable[[], float] | None = None) -> Health:
        number = len(self.members)
        health = Health(
            {"gpt": self.settings, "claude": self.settings},
            self.store,
            clock or self.clock,
            random.Random(number).random,
            lambda event: self.events.append((number, event)),
            HealthSettings(store_connect_seconds=0.05, store_timeout_seconds=0.05),
        )
        self.members.append(health)
        return health

    async def look(self, *members: Health) -> None:
        """These, or all, do what they have to do in the background now."""
        for health in members or self.members:
            health.touch()
            for _ in range(4):
                await health.step()
                await asyncio.sleep(0)

    async def pass_time(self, seconds: float, step: float = 1.25) -> None:
        """Time goes by under traffic that asks for other targets."""
        end = self.clock() + seconds
        while self.clock() < end - 1e-6:
            self.clock.advance(min(step, end - self.clock()))
            await self.look()

    def told(self, kind: str) -> list[tuple[int, Event]]:
        return [(number, event) for number, event in self.events if event.kind == kind]


@pytest.fixture
async def fleet(clock: Clock) -> AsyncIterator[Fleet]:
    fleet = Fleet(clock)
    yield fleet
    fleet.store.wrong, fleet.store.seconds = None, 0.0
    for health in fleet.members:
        await health.close()


def call(health: Health, outcome: Outcome, target: str = "gpt", **given: Any) -> bool:
    """One call, if the breaker lets it pass."""
    leave = health.admit(target, last_resort=True)
    if isinstance(leave, Ticket):
        health.record(leave, outcome, **given)
    return isinstance(leave, Ticket)


async def stored(fleet: Fleet, target: str = "gpt") -> Breaker:
    """What the store holds of the target."""
    held = await fleet.store.load(KEY)
    assert held is not None
    board, bad = board_of(held.document, [target])
    assert bad is None
    return board.state(target)


def trip(health: Health, target: str = "gpt") -> None:
    for _ in range(5):
        call(health, Outcome.FAULT, target, error="Unavailable")


async def test_when_one_instance_trips_the_others_know_within_a_refresh(fleet: Fleet):
    one, other = fleet.join(), fleet.join()
    await fleet.look()
    trip(one)
    assert one.view("gpt").state == "open"
    assert other.view("gpt").state == "closed"
    await fleet.pass_time(1.5, step=0.25)
    assert other.view("gpt").state == "open"
    assert other.view("gpt").open_until == one.view("gpt").open_until
    assert other.view("claude").state == "closed"


async def test_healthy_calls_write_nothing(fleet: Fleet):
    health = fleet.join()
    for _ in range(20):
        for _ in range(10):
            call(health, Outcome.OK)
        await fleet.pass_time(1.25)
    assert fleet.store.calls["save"] == 0
    assert fleet.store.calls["load"] >= 20


async def test_without_traffic_nothing_is_read(fleet: Fleet):
    health = fleet.join()
    await fleet.look()
    fleet.clock.advance(11)
    reads = fleet.store.calls["load"]
    for _ in range(50):
        fleet.clock.advance(1)
        await health.step()
    assert fleet.store.calls["load"] == reads


async def test_news_is_gathered_while_a_write_is_under_way(fleet: Fleet):
    health = fleet.join()
    await fleet.look()
    fleet.store.seconds = 0.01
    writing = []
    for _ in range(12):
        call(health, Outcome.FAULT)
        fleet.clock.advance(0.3)
        writing.append(asyncio.create_task(health.step()))
        await asyncio.sleep(0.002)
    await asyncio.gather(*writing)
    assert fleet.store.most_saving == 1
    assert fleet.store.calls["save"] < 6


async def test_exactly_one_instance_probes_in_each_period(fleet: Fleet):
    members = [fleet.join() for _ in range(5)]
    await fleet.look()
    trip(members[0])
    await fleet.pass_time(2)
    for _ in range(3):
        probes = 0
        open_until = members[0].view("gpt").open_until
        assert open_until is not None
        await fleet.pass_time(open_until - fleet.clock() - 0.5)
        while members[0].view("gpt").open_until in (None, open_until):
            for health in members:
                leave = health.admit("gpt")
                if isinstance(leave, Ticket):
                    probes += 1
                    health.record(leave, Outcome.FAULT)
            await fleet.pass_time(0.5, step=0.25)
        assert probes == 1


async def test_after_a_good_probe_all_close_and_ramp_up(fleet: Fleet):
    members = [fleet.join() for _ in range(3)]
    await fleet.look()
    trip(members[0])
    await fleet.pass_time(31)
    while all(health.view("gpt").state != "closed" for health in members):
        for health in members:
            call(health, Outcome.OK)
        await fleet.pass_time(0.5, step=0.25)
    await fleet.pass_time(1.25)
    assert [health.view("gpt").share for health in members] == [0.1] * 3
    await fleet.pass_time(60)
    assert [health.view("gpt").share for health in members] == [1.0] * 3


async def test_a_claim_that_is_not_used_goes_to_somebody_else(fleet: Fleet):
    one, other = fleet.join(), fleet.join()
    await fleet.look()
    trip(one)
    await fleet.pass_time(30)
    assert isinstance(one.admit("gpt"), Refused), "the claim is made in the background"
    await fleet.pass_time(1.25)
    probe = other.view("gpt").probe
    assert probe is not None
    assert probe.started is None
    assert isinstance(other.admit("gpt"), Refused)
    fleet.members.remove(one)
    await fleet.pass_time(5)
    assert isinstance(other.admit("gpt"), Refused)
    await fleet.pass_time(1.25)
    leave = other.admit("gpt")
    assert isinstance(leave, Ticket)
    assert leave.probe
    await one.close()


async def test_a_prober_that_dies_delays_the_next_probe_by_its_lease(fleet: Fleet):
    one, other = fleet.join(), fleet.join()
    await fleet.look()
    trip(one)
    await fleet.pass_time(30)
    one.admit("gpt")
    await fleet.pass_time(1.25)
    assert isinstance(one.admit("gpt"), Ticket)
    await fleet.look()
    fleet.members.remove(one)
    died = fleet.clock()
    while isinstance(other.admit("gpt"), Refused):
        await fleet.pass_time(0.5, step=0.25)
    assert SETTINGS.claim_lease_seconds < fleet.clock() - died <= SETTINGS.probe_lease_seconds + 2
    await one.close()


async def test_a_long_probe_keeps_its_lease_while_its_process_lives(fleet: Fleet):
    one, other = fleet.join(), fleet.join()
    await fleet.look()
    trip(one)
    await fleet.pass_time(30)
    one.admit("gpt")
    await fleet.pass_time(1.25)
    leave = one.admit("gpt")
    assert isinstance(leave, Ticket)
    for _ in range(40):
        await fleet.pass_time(2)
        assert isinstance(other.admit("gpt"), Refused)
    one.record(leave, Outcome.OK)
    assert one.view("gpt").state == "closed"


async def test_a_rarely_used_target_gets_its_probe(fleet: Fleet):
    health = fleet.join()
    trip(health)
    await fleet.look()
    for _ in range(20):
        for _ in range(60):
            fleet.clock.advance(1)
            await health.step()
        health.touch()
        if isinstance(health.admit("gpt"), Ticket):
            return
    pytest.fail("one request a minute never got to probe")


async def test_a_target_whose_probe_is_due_belongs_into_plans(fleet: Fleet):
    health = fleet.join()
    trip(health)
    assert health.refusals().keys() == {"gpt"}
    fleet.clock.advance(30)
    assert health.refusals() == {}


async def test_a_hold_is_shared(fleet: Fleet):
    one, other = fleet.join(), fleet.join()
    await fleet.look()
    call(one, Outcome.PARKED, retry_after=20.0)
    await fleet.pass_time(1.5, step=0.5)
    refused = other.admit("gpt")
    assert isinstance(refused, Refused)
    assert refused.reason == "parked"
    assert other.view("gpt").parked_until == one.view("gpt").parked_until


async def test_faults_of_several_instances_add_up(fleet: Fleet):
    members = [fleet.join() for _ in range(5)]
    await fleet.look()
    for health in members:
        call(health, Outcome.FAULT)
    await fleet.pass_time(5, step=0.25)
    assert [health.view("gpt").state for health in members] == ["open"] * 5


async def test_a_success_elsewhere_contradicts_them(fleet: Fleet):
    members = [fleet.join() for _ in range(5)]
    await fleet.look()
    for health in members:
        call(health, Outcome.FAULT)
    for _ in range(20):
        call(members[0], Outcome.OK)
        await fleet.pass_time(0.25, step=0.25)
    assert [health.view("gpt").state for health in members] == ["closed"] * 5


async def test_clocks_that_are_wrong_agree_on_the_services_time(fleet: Fleet):
    one = fleet.join()
    other = Health({"gpt": SETTINGS}, Elsewhere(fleet.store, 300.0), lambda: fleet.clock() - 300.0)
    await fleet.look()
    trip(one)
    await fleet.look()
    await fleet.pass_time(0.5, step=0.25)
    await fleet.look(other)
    assert other.view("gpt").open_until == one.view("gpt").open_until
    refused = other.admit("gpt")
    assert isinstance(refused, Refused)
    open_until = one.view("gpt").open_until
    assert open_until is not None
    assert refused.retry_at == pytest.approx(open_until - 300.0)
    await other.close()


class Elsewhere:
    """The same store, seen by an instance whose clock differs from the service's by `offset`."""

    def __init__(self, store: Watched, offset: float) -> None:
        self._store, self.offset = store, offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class TestWithoutTheStore:
    async def test_breakers_carry_on_and_say_that_they_are_alone(self, fleet: Fleet):
        health = fleet.join()
        fleet.store.wrong = StoreUnavailable
        await fleet.pass_time(12)
        assert health.view("gpt").sharing == "degraded"
        trip(health)
        assert isinstance(health.admit("gpt"), Refused)
        await fleet.pass_time(30)
        leave = health.admit("gpt")
        assert isinstance(leave, Ticket), "alone, the request itself is the probe"
        assert leave.probe
        assert isinstance(health.admit("gpt"), Refused)

    async def test_the_store_is_left_in_peace_more_and_more(self, fleet: Fleet):
        health = fleet.join()
        fleet.store.wrong = StoreUnavailable
        await fleet.pass_time(300)
        assert health.view("gpt").sharing == "degraded"
        assert fleet.store.calls["load"] < 45

    async def test_it_comes_back_by_itself_and_the_states_meet(self, fleet: Fleet):
        one, other = fleet.join(), fleet.join()
        await fleet.look()
        fleet.store.wrong = StoreUnavailable
        await fleet.pass_time(6)
        trip(one)
        await fleet.pass_time(6)
        assert other.view("gpt").state == "closed"
        fleet.store.wrong = None
        await fleet.pass_time(17)
        assert [each.view("gpt").state for each in (one, other)] == ["open", "open"]
        assert [each.view("gpt").sharing for each in (one, other)] == ["shared", "shared"]
        assert [number for number, _ in fleet.told("degraded")] == [0, 1]
        assert len(fleet.told("recovered")) == 2

    async def test_a_missing_role_is_told_once(self, fleet: Fleet):
        fleet.join()
        fleet.store.wrong = lambda: StoreForbidden("give the identity the role")
        await fleet.pass_time(60)
        assert [event.detail for _, event in fleet.told("forbidden")] == ["give the identity the role"]

    async def test_whatever_an_adapter_raises_sharing_goes_on(self, fleet: Fleet):
        health = fleet.join()
        fleet.store.wrong = RuntimeError
        await fleet.pass_time(10)
        fleet.store.wrong = None
        await fleet.pass_time(20)
        assert health.view("gpt").sharing == "shared"

    async def test_a_failed_write_is_tried_again(self, fleet: Fleet):
        one, other = fleet.join(), fleet.join()
        await fleet.look()
        fleet.store.wrong = StoreUnavailable
        trip(one)
        await fleet.look(one)
        fleet.store.wrong = None
        await fleet.pass_time(8)
        assert other.view("gpt").state == "open"

    async def test_with_no_store_at_all_everything_works_in_this_process(self, clock: Clock):
        health = Health({"gpt": SETTINGS}, None, clock, lambda: 0.5)
        trip(health)
        assert health.view("gpt").sharing == "local"
        clock.advance(30)
        assert call(health, Outcome.OK)
        assert health.view("gpt").state == "closed"
        await health.warm()
        await health.close()

    @pytest.mark.parametrize("trouble", ["none", "slow", "away"])
    async def test_no_request_waits_for_it(self, trouble: str):
        store = Watched()
        store.seconds = 10.0 if trouble == "slow" else 0.0
        store.wrong = StoreUnavailable if trouble == "away" else None
        health = Health(
            {"gpt": SETTINGS}, store, settings=HealthSettings(refresh_seconds=0.05, store_connect_seconds=0.1)
        )
        seconds = []
        for n in range(1500):
            started = time.perf_counter()
            health.touch()
            call(health, Outcome.FAULT if n % 100 == 0 else Outcome.OK)
            seconds.append(time.perf_counter() - started)
            await asyncio.sleep(0)
        assert sorted(seconds)[int(len(seconds) * 0.99)] < 0.05, "its time limit is twice that, and slow is 10 s"
        assert store.calls["load"] > 0
        store.seconds = 0.0
        await health.close()

    async def test_a_cold_instance_waits_for_its_first_look_only_so_long(self, fleet: Fleet):
        fleet.store.seconds = 10.0
        health = fleet.join()
        started = time.perf_counter()
        await health.warm(timeout=0.02)
        assert time.perf_counter() - started < 1
        assert call(health, Outcome.OK)

    async def test_a_cold_instance_knows_what_is_open(self, fleet: Fleet):
        trip(fleet.join())
        await fleet.look()
        await fleet.pass_time(0.5, step=0.25)
        late = fleet.join()
        await late.warm()
        assert late.view("gpt").state == "open"


class TestDocuments:
    async def test_an_unreadable_one_is_told_once_moved_aside_and_taken_as_absent(self, fleet: Fleet):
        await fleet.store.save(KEY, {"colour": "blue"}, None)
        health = fleet.join()
        await fleet.pass_time(5)
        assert [event.detail for _, event in fleet.told("set_aside")] == ["not a document of breakers"]
        assert [key for key, _, _ in fleet.store.aside] == [KEY]
        trip(health)
        await fleet.pass_time(1.25, step=0.25)
        assert (await stored(fleet)).phase == "open"

    async def test_one_that_cannot_be_moved_is_still_told_only_once(self, fleet: Fleet):
        await fleet.store.save(KEY, {"colour": "blue"}, None)

        async def refuse(key: str, etag: str, why: str) -> None:
            raise StoreUnavailable

        fleet.store.set_aside = refuse  # type: ignore[method-assign]
        fleet.join()
        await fleet.pass_time(6)
        assert len(fleet.told("set_aside")) == 1

    async def test_what_can_be_read_of_one_is_kept(self, fleet: Fleet):
        trip(fleet.join(), "claude")
        await fleet.look()
        await fleet.pass_time(0.5, step=0.25)
        held = await fleet.store.load(KEY)
        assert held is not None
        torn = {**held.document, "targets": {**held.document["targets"], "gpt": {"phase": "ajar"}}}
        await fleet.store.save(KEY, torn, held.etag)
        fleet.members.clear()
        late = fleet.join()
        await fleet.look()
        assert (late.view("claude").state, late.view("gpt").state) == ("open", "closed")
        assert (await stored(fleet, "claude")).phase == "open"
        assert [event.detail[:4] for _, event in fleet.told("set_aside")] == ["gpt:"]

    async def test_what_other_routes_files_name_is_kept(self, fleet: Fleet):
        entry = {"of": "the next deployment"}
        await fleet.store.save(KEY, {"schema": 1, "saves": 4, "targets": {"new": entry}}, None)
        trip(fleet.join())
        await fleet.look()
        held = await fleet.store.load(KEY)
        assert held is not None
        assert (held.document["saves"], held.document["targets"]["new"]) == (5, entry)
        assert held.document["targets"]["gpt"]["phase"] == "open"

    async def test_that_of_a_newer_build_is_left_alone(self, fleet: Fleet):
        newer = await fleet.store.save(KEY, {"schema": 2}, None)
        health = fleet.join()
        await fleet.look()
        trip(health)
        await fleet.pass_time(5)
        assert await fleet.store.load(KEY) == newer
        assert health.view("gpt").state == "open"

    async def test_one_that_vanishes_comes_back(self, fleet: Fleet):
        health = fleet.join()
        trip(health)
        await fleet.pass_time(1.5, step=0.25)
        held = await fleet.store.load(KEY)
        assert held is not None
        await fleet.store.set_aside(KEY, held.etag, "somebody emptied the table")
        await fleet.pass_time(3)
        assert (await stored(fleet)).phase == "open"


class TestOrders:
    async def test_an_order_reaches_everybody(self, fleet: Fleet):
        one, other = fleet.join(), fleet.join()
        await fleet.look()
        view = await one.set_manual("gpt", "isolate", "kim", "maintenance", fleet.clock() + 60)
        assert view.manual is not None
        await fleet.pass_time(1.25)
        assert other.view("gpt").manual == view.manual
        assert isinstance(other.admit("gpt"), Refused)
        await fleet.pass_time(60)
        assert other.view("gpt").manual is None
        assert call(other, Outcome.OK)

    async def test_an_order_wins_over_what_just_happened_elsewhere(self, fleet: Fleet):
        one, other = fleet.join(), fleet.join()
        await fleet.look()
        trip(other)
        await fleet.pass_time(0.5, step=0.25)
        view = await one.set_manual("gpt", "close", "kim", "false alarm")
        assert view.state == "closed"
        await fleet.pass_time(2.5)
        assert other.view("gpt").manual == view.manual
        await one.set_manual("gpt", "reset", "kim", "over")
        await fleet.pass_time(2.5)
        assert other.view("gpt").manual is None
        assert [event.kind for number, event in fleet.events if number == 1] == ["opened", "forced_closed", "reset"]

    async def test_an_order_without_the_store_holds_here_and_is_published_later(self, fleet: Fleet):
        one, other = fleet.join(), fleet.join()
        await fleet.look()
        fleet.store.wrong = StoreUnavailable
        view = await one.set_manual("gpt", "isolate", "kim", "maintenance")
        assert isinstance(one.admit("gpt"), Refused)
        fleet.store.wrong = None
        await fleet.pass_time(8)
        assert other.view("gpt").manual == view.manual

    async def test_a_lost_race_is_told_to_the_admin(self, fleet: Fleet):
        health = Health({"gpt": SETTINGS}, fleet.store, fleet.clock)

        async def lose(key: str, document: Mapping[str, Any], etag: str | None) -> Versioned:
            raise Conflict(key)

        fleet.store.save = lose  # type: ignore[method-assign]
        with pytest.raises(Conflict):
            await health.set_manual("gpt", "isolate", "kim", "maintenance")

    async def test_an_unknown_target_is_a_key_error(self, fleet: Fleet):
        with pytest.raises(KeyError):
            await fleet.join().set_manual("nobody", "isolate", "kim", "")


async def test_what_was_decided_is_written_before_the_process_ends(clock: Clock):
    fleet = Fleet(clock)
    health = fleet.join()
    await fleet.look()
    trip(health)
    await health.close()
    assert (await stored(fleet)).phase == "open"


async def test_the_background_task_works_by_itself(fleet: Fleet):
    store = InMemoryStore()
    one, other = (
        Health({"gpt": SETTINGS}, store, settings=HealthSettings(refresh_seconds=0.05, publish_seconds=0.0))
        for _ in range(2)
    )
    await one.warm()
    await other.warm()
    trip(one)
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while other.view("gpt").state == "closed":
                other.touch()
                await asyncio.sleep(0.01)
    assert other.view("gpt").state == "open"
    await one.close()
    await other.close()


class TestSpeed:
    def test_the_first_answer_sets_it(self, clock: Clock):
        health = Health({"gpt": SETTINGS}, None, clock)
        assert health.speed("gpt") is None
        health.observe("gpt", first_token_seconds=0.5, seconds=2.5, output_tokens=100)
        speed = health.speeds()["gpt"]
        assert (speed.first_token_seconds, speed.tokens_per_second) == (0.5, 50.0)

    def test_newer_answers_move_it_and_an_old_memory_gives_way(self, clock: Clock):
        health = Health({"gpt": SETTINGS}, None, clock)
        health.observe("gpt", first_token_seconds=1.0, seconds=2.0, output_tokens=10)
        health.observe("gpt", first_token_seconds=2.0, seconds=3.0, output_tokens=10)
        assert health.speeds()["gpt"].first_token_seconds == pytest.approx(1.2)
        clock.advance(3600)
        health.observe("gpt", first_token_seconds=5.0, seconds=6.0, output_tokens=10)
        assert health.speeds()["gpt"].first_token_seconds == pytest.approx(5.0, abs=0.01)

    def test_an_answer_without_tokens_or_stream_keeps_what_it_cannot_tell(self, clock: Clock):
        health = Health({"gpt": SETTINGS}, None, clock)
        health.observe("gpt", first_token_seconds=None, seconds=2.0, output_tokens=100)
        health.observe("gpt", first_token_seconds=0.5, seconds=0.5, output_tokens=0)
        speed = health.speeds()["gpt"]
        assert (speed.first_token_seconds, speed.tokens_per_second) == (0.5, 50.0)


async def test_a_view_says_what_the_breaker_knows(fleet: Fleet):
    health = fleet.join()
    await fleet.look()
    for outcome in (Outcome.OK, Outcome.FAULT):
        call(health, outcome, error="TooSlow" if outcome is Outcome.FAULT else None)
    view = health.view("gpt")
    assert (view.state, view.faults, view.requests, view.last_error) == ("closed", 1, 2, "TooSlow")
    assert (view.open_until, view.parked_until, view.probe, view.manual, view.refusal) == (None,) * 5
    assert (view.sharing, view.sharing_since, view.share) == ("shared", fleet.clock(), 1.0)
    assert set(health.views()) == {"gpt", "claude"}
