"""Several worker processes share one breaker: news, probes, crashes, and a table service that comes and goes.

Each test runs the real app in processes of its own, against Azurite and stand-in providers. Scaled down, in seconds,
from the defaults: the open time (30 to 1.5, at most 300 to 2), the leases (claim 5 to 2, probe 30 to 5), the
ramp (60 to 3), the healthy period (180 to 10), the confirmation (1.2 to 0.3), the refresh (1 to 0.2), publishing (0.25
to 0.05), idleness (10 to 1.5), and the pauses after which a lost table service is asked again (1 to 0.2, at most 15 to
1). Only the time limit of a table call is longer than by default (2 instead of 0.08), because a busy machine is no
table service that is away. Everything else is as it comes.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local import azurite as azurite_service
from local.providers import Fault, StandIn, serve
from tests.conftest import unavailable
from tests.fleet import (
    Answered,
    Member,
    Tables,
    Traffic,
    all_say,
    all_share,
    asked_at,
    fleet,
    fleet_routes,
    proxied,
    statuses,
    tables,
    until,
)

OPEN, MAX_OPEN, LEASE = 1.5, 2.0, 5.0  # seconds; the lease leaves a busy machine time to renew it
BREAKER: Mapping[str, float] = {
    "open_seconds": OPEN,
    "max_open_seconds": MAX_OPEN,
    "claim_lease_seconds": 2.0,
    "probe_lease_seconds": LEASE,
    "ramp_seconds": 3.0,
    "healthy_seconds": 10.0,
    "confirm_seconds": 0.3,
}
HEALTH: Mapping[str, float] = {
    "refresh_seconds": 0.2,
    "publish_seconds": 0.05,
    "idle_seconds": 1.5,
    "store_timeout_seconds": 2.0,
    "store_retry_seconds": 0.2,
    "max_store_retry_seconds": 1.0,
}
NEWS_SECONDS = 2.0  # in which every instance hears that a target is down
CLAIM_SECONDS = 2.5  # from the end of an open time to the probe: a claim that comes to nothing, the next one, a look
LONGEST_GAP = MAX_OPEN * 1.1 + CLAIM_SECONDS  # between two probes
CLOCKS = 0.1  # seconds by which the test's clock and the processes' readings of theirs may differ
DOWN = Fault("status", status=503)


@dataclass(frozen=True)
class Scene:
    """Four worker processes in front of `shaky` and, should that not answer, `steady`."""

    members: list[Member]
    shaky: StandIn
    steady: StandIn


@pytest.fixture(autouse=True)
def _need_azurite() -> None:
    if reason := azurite_service.unavailable():
        unavailable(reason)


@asynccontextmanager
async def scene(
    folder: Path, *, service: Tables | None = None, skews: Sequence[float] = (), processes: int = 4, **changes: Any
) -> AsyncIterator[Scene]:
    """The scene once every process shares its state; `changes` are of the breaker's settings."""
    async with AsyncExitStack() as stack:
        shaky, steady = [await stack.enter_async_context(serve(name=name)) for name in ("shaky", "steady")]
        if service is None:
            service = await stack.enter_async_context(tables())
        routes = fleet_routes(folder, [shaky, steady], breaker={**BREAKER, **changes}, health=HEALTH)
        started = fleet([service.environment] * processes, routes, skews=skews)
        members = await stack.enter_async_context(started)
        async with Traffic(members, model="steady"):
            await until(all_share(members), 15, "every process shares its state")
        yield Scene(members, shaky, steady)


async def trip(member: Member, shaky: StandIn) -> None:
    """Has `member` alone find out that `shaky` is down, while the others ask for `steady`."""
    shaky.behave(fault=DOWN)
    while (await member.status())["shaky"]["state"] != "open":
        assert (await member.ask()).status_code == 200
    forget(shaky)


def forget(shaky: StandIn) -> None:
    """What `shaky` was asked so far is not looked at any more."""
    fault = shaky.behaviour.fault
    shaky.reset()
    shaky.behave(fault=fault)


@asynccontextmanager
async def outage(play: Scene, per_second: float = 6.0) -> AsyncIterator[Traffic]:
    """Traffic to every process once one has found out that shaky is down, and all others have heard of it in time."""
    async with Traffic(play.members, per_second, "steady") as traffic:
        await trip(play.members[0], play.shaky)
        tripped = time.monotonic()
        known = await until(lambda: _all_know(play), 15, "all know that shaky is down")
        assert known is not None
        assert known - tripped <= NEWS_SECONDS
        assert play.shaky.asked == 0, "it was enough that one process asked"
        traffic.model = "chat"
        yield traffic


async def _all_know(play: Scene) -> float | None:
    """When every process was asked and said that shaky is open; None while some do not."""
    asked = time.monotonic()
    return asked if await all_say(play.members, "shaky", state="open")() else None


def gaps(times: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


async def test_an_outage_from_the_first_news_to_the_full_traffic_again(tmp_path):
    """With one probe for each open time, among which one whose process is killed while it runs."""
    async with scene(tmp_path) as play, outage(play) as traffic:
        opened = [each["shaky"] for each in await statuses(play.members)]
        await play.shaky.until(lambda shaky: shaky.asked >= 2, 2 * LONGEST_GAP)
        play.shaky.behave(fault=Fault("hang"))
        await play.shaky.until(lambda shaky: shaky.running == 1, LONGEST_GAP)
        probes = asked_at(play.shaky)  # the last one hangs
        others, lease, killed = await _prober_killed(play, traffic)
        assert play.shaky.asked == len(probes), "nobody else asked meanwhile"
        play.shaky.behave(fault=None)
        await until(all_say(others, "shaky", state="closed"), LEASE + LONGEST_GAP + NEWS_SECONDS, "the survivors close")
        passed, *later = asked_at(play.shaky)[len(probes) :]
        closed = max(each["shaky"]["since"] for each in await statuses(others))
        await until(all_say(others, "shaky", share=1.0), 3.0 + NEWS_SECONDS, "the ramp ends")
        full = time.time()
        await until(lambda: _answered_since(traffic, full, 20), 15, "traffic flows on")

    assert traffic.lost == []
    assert len({(each["generation"], each["open_until"], each["last_error"]) for each in opened}) == 1
    assert OPEN - CLOCKS <= probes[0] - opened[0]["since"] <= OPEN * 1.1 + CLAIM_SECONDS
    for gap in gaps(probes):  # exactly one request per open time
        assert MAX_OPEN - CLOCKS <= gap <= LONGEST_GAP
    assert lease - killed <= LEASE
    assert lease - CLOCKS <= passed <= killed + LEASE + CLAIM_SECONDS
    assert not [at for at in later if at < closed - CLOCKS]
    _assert_ramp(traffic, closed, full)


async def _prober_killed(play: Scene, traffic: Traffic) -> tuple[list[Member], float, float]:
    """Kills the process whose probe is running; returns the others, the end of its lease, and when it was killed."""
    probe = play.shaky.requests[-1]
    assert probe.asked.document is not None
    prober = next(each for each in play.members if each.name == probe.asked.document["user"])
    others = [each for each in play.members if each is not prober]
    begun = await until(lambda: _lease(others), 15, "the others know of the probe")
    await until(lambda: _renewed(others, begun), 15, "a probe that takes its time has its lease renewed")
    prober.kill()
    killed = time.time()
    await traffic.drop(prober)
    return others, max(each["shaky"]["probe"]["until"] for each in await statuses(others)), killed


async def _answered_since(traffic: Traffic, at: float, count: int) -> bool:
    return sum(answer.at > at for answer in traffic.answered) >= count


def _assert_ramp(traffic: Traffic, closed: float, full: float) -> None:
    """A tenth of the traffic in the first third of the ramp, so never half of it; all of it after the end."""
    early = _targets(traffic.answered, closed + CLOCKS, closed + 1.0 - CLOCKS)
    assert len(early) >= 8
    assert early.count("shaky") < len(early) / 2
    assert set(_targets(traffic.answered, full, float("inf"))) == {"shaky"}


def _targets(answered: Sequence[Answered], since: float, before: float) -> list[str | None]:
    return [answer.target for answer in answered if answer.at >= since and answer.done_at < before]


async def _lease(members: Sequence[Member]) -> float | None:
    """Until when all these processes believe that a probe is running; None while they do not agree that one is."""
    probes = [each["shaky"]["probe"] for each in await statuses(members)]
    if any(probe is None or probe["started"] is None for probe in probes):
        return None
    return min(probe["until"] for probe in probes)


async def _renewed(members: Sequence[Member], begun: float | None) -> bool:
    assert begun is not None
    return (await _lease(members) or 0.0) > begun


async def test_the_table_service_comes_and_goes_and_no_request_is_lost(tmp_path):
    """Once it ends and keeps what it held, once it is killed and comes back empty; each time all say the same again."""
    async with AsyncExitStack() as stack:
        kept = await stack.enter_async_context(tables(tmp_path / "kept"))
        play = await stack.enter_async_context(scene(tmp_path, service=kept, processes=3, open_seconds=MAX_OPEN))
        async with outage(play, per_second=6) as traffic:
            await kept.stop()
            await _without_the_table(play, traffic)
            await kept.start()
            await _together_again(play)

            kept.kill()
            shutil.rmtree(tmp_path / "kept")
            await _without_the_table(play, traffic)
            await kept.start()
            await _together_again(play)

            await traffic.settled()
            forget(play.shaky)
            await play.shaky.until(lambda shaky: shaky.asked >= 2, 2 * LONGEST_GAP)
            probes = asked_at(play.shaky)
            play.shaky.behave(fault=None)
            await until(all_say(play.members, "shaky", state="closed"), LONGEST_GAP + NEWS_SECONDS, "all close")

    assert traffic.lost == []
    assert len(probes) == 2
    assert probes[1] - probes[0] >= MAX_OPEN - CLOCKS


async def _without_the_table(play: Scene, traffic: Traffic) -> None:
    await until(all_say(play.members, "shaky", sharing="degraded"), 10, "all notice that the table is away")
    away = time.time()
    await until(lambda: _answered_since(traffic, away, 24), 10, "requests are answered meanwhile")


async def _together_again(play: Scene) -> None:
    await until(all_share(play.members), 10, "all share again")
    await until(lambda: _agreed(play.members), LONGEST_GAP, "all say the same")


async def _agreed(members: Sequence[Member]) -> bool:
    """Whether every process knows the same state of shaky, and it is one that they share."""
    seen = [each["shaky"] for each in await statuses(members)]
    return len({(each["state"], each["generation"], each["open_until"]) for each in seen}) == 1


async def test_processes_whose_clocks_are_wrong_keep_the_same_open_time(tmp_path):
    """By the table service's clock: one that is 5 s ahead does not probe early, and what one that is 5 s behind
    decides is not over before it begins."""
    async with scene(tmp_path, skews=(-5.0, 5.0), processes=2, open_seconds=MAX_OPEN) as play:
        async with Traffic(play.members, model="steady") as traffic:
            # The service's clock is known to the second at once, and better with each look.
            await until(lambda: _answered_since(traffic, 0, 60), 15, "traffic flows")
        async with outage(play) as traffic:
            tripped = time.time()
            await play.shaky.until(lambda shaky: shaky.asked >= 2, 2 * LONGEST_GAP)
            probes = asked_at(play.shaky)
    assert traffic.lost == []
    assert min(gaps([tripped, *probes])) >= 1.0


async def test_health_writes_nothing_and_idleness_asks_nothing(tmp_path):
    async with AsyncExitStack() as stack:
        standin = await stack.enter_async_context(serve(name="steady"))
        service = await stack.enter_async_context(tables())
        proxy = await stack.enter_async_context(proxied(service))
        routes = fleet_routes(tmp_path, [standin], breaker=BREAKER, health=HEALTH)
        members = await stack.enter_async_context(fleet([proxy.environment] * 2, routes))
        async with Traffic(members):
            await until(all_share(members), 15, "every process shares its state")
        made = len(proxy.methods)
        async with Traffic(members, per_second=15) as traffic:
            await until(lambda: _answered_since(traffic, 0, 60), 15, "traffic flows")
        reads = len(proxy.methods) - made
        await until(lambda: proxy.quiet(HEALTH["idle_seconds"]), 10, "the last look")
        assert await proxy.quiet(2.0)
        assert (await members[0].ask()).status_code == 200
        assert not await proxy.quiet(2.0), "the next request starts the looking again"
    assert traffic.lost == []
    assert reads >= 10
    assert set(proxy.methods[made:]) == {"GET"}
