"""No request ever waits for the table: also over HTTP, with a table service that is silent, gone, or falls silent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median, quantiles

from local import azurite as azurite_service
from local.processes import free_port
from local.providers import Fault, serve
from tests.conftest import unavailable
from tests.fleet import (
    Member,
    all_say,
    fleet,
    fleet_routes,
    proxied,
    silent_tables,
    statuses,
    table_environment,
    tables,
    until,
)

ROUNDS = 120
STALLED = 1.5  # seconds: less than any time limit of a table call that has not worked yet, and than its answer


async def seconds_of(member: Member) -> float:
    began = time.monotonic()
    assert (await member.ask()).status_code == 200
    seconds = time.monotonic() - began
    assert seconds < STALLED
    return seconds


async def test_requests_are_as_fast_with_a_table_that_is_silent_or_gone_as_without_one(tmp_path):
    """With the default settings. The processes are asked in turns, so that a busy machine is as unfair to each."""
    if reason := azurite_service.unavailable():
        unavailable(reason)
    async with AsyncExitStack() as stack:
        standin = await stack.enter_async_context(serve(name="one"))
        silent = await stack.enter_async_context(silent_tables())
        service = await stack.enter_async_context(tables())
        proxy = await stack.enter_async_context(proxied(service))
        stores = {
            "none": {},
            "silent": silent.environment,
            "gone": table_environment(free_port()),
            "falls silent": proxy.environment,
        }
        routes = fleet_routes(tmp_path, [standin], breaker={}, health={})
        members = await stack.enter_async_context(fleet(list(stores.values()), routes))
        taken: dict[str, list[float]] = {store: [] for store in stores}
        answered_at: list[float] = []
        for number in range(ROUNDS):
            if number == ROUNDS // 4:
                assert proxy.methods, "the last one's table worked so far"
                proxy.open.clear()
            for store, member in zip(stores, members, strict=True):
                taken[store].append(await seconds_of(member))
                if store == "silent":
                    answered_at.append(time.time())
        spans = [*silent.held, *((since, time.time()) for since in silent.waiting)]
        sharing = [each["one"]["sharing"] for each in await statuses(members)]
        proxy.open.set()

    assert silent.answered == 0
    assert sum(since <= at < until for at in answered_at for since, until in spans) >= 10, "answered meanwhile"
    assert sharing[0] == "local"
    assert "degraded" in sharing[1:]
    for store in ("silent", "gone", "falls silent"):
        assert median(taken[store]) <= 1.5 * median(taken["none"]) + 0.003, store
        assert p99(taken[store]) <= 5 * p99(taken["none"]) + 0.05, store


def p99(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100)[-1]


async def test_the_very_first_request_does_not_wait_for_a_silent_table_either(tmp_path):
    """It gives the table a quarter of a second to say what the others know; the SDK is loaded meanwhile."""
    async with AsyncExitStack() as stack:
        standin = await stack.enter_async_context(serve(name="one"))
        silent = await stack.enter_async_context(silent_tables())
        routes = fleet_routes(tmp_path, [standin], breaker={}, health={"store_connect_seconds": 10})
        (member,) = await stack.enter_async_context(fleet([silent.environment], routes, warm=False))
        assert (await member.ask()).status_code == 200
        assert len(silent.waiting) == 1
        assert (silent.held, silent.answered) == ([], 0)


async def test_breakers_carry_on_without_the_table(tmp_path):
    """They trip, probe and close by what this process sees alone, and say that they do."""
    async with AsyncExitStack() as stack:
        shaky, steady = [await stack.enter_async_context(serve(name=name)) for name in ("shaky", "steady")]
        routes = fleet_routes(
            tmp_path,
            [shaky, steady],
            breaker={"open_seconds": 0.5, "ramp_seconds": 0},
            health={"refresh_seconds": 0.05, "store_retry_seconds": 0.05},
        )
        members = await stack.enter_async_context(fleet([table_environment(free_port())], routes))
        (member,) = members
        await until(lambda: _asked_and(member, "sharing", "degraded"), 10, "the table is missed")
        shaky.behave(fault=Fault("status"))
        await until(lambda: _asked_and(member, "state", "open"), 10, "the breaker opens")
        shaky.behave(fault=None)
        await until(lambda: _asked_and(member, "state", "closed"), 10, "and closes")
        assert await all_say(members, "shaky", sharing="degraded")()
        assert (await member.ask()).headers["x-router-target"] == "shaky"


async def _asked_and(member: Member, field: str, value: str) -> bool:
    """Asks once, which must go well, and looks at what the process then says about shaky."""
    assert (await member.ask()).status_code == 200
    return (await member.status())["shaky"][field] == value
