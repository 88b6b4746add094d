"""No request ever waits for the table: also over HTTP, with a table service that is silent, gone, or falls silent.

How fast the requests then are is measured by `benchmarks/store_away.py`; here they are answered while the table is not.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from local import azurite as azurite_service
from local.processes import free_port
from local.providers import Fault, serve
from tests.conftest import unavailable
from tests.fleet import (
    Member,
    all_say,
    all_share,
    fleet,
    fleet_routes,
    proxied,
    silent_tables,
    table_environment,
    tables,
    until,
)

REQUESTS = 12
PATIENT = {"store_connect_seconds": 60, "store_timeout_seconds": 10}  # so that a table call waits for all of the test


async def asked_well(member: Member) -> bool:
    return (await member.ask()).status_code == 200


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "from-the-very-first"])
async def test_requests_are_answered_while_the_table_has_not_answered_the_first_look(tmp_path, warm):
    """The first one gives the table a quarter of a second to say what the others know; nobody asks it a second time."""
    async with AsyncExitStack() as stack:
        standin = await stack.enter_async_context(serve(name="one"))
        silent = await stack.enter_async_context(silent_tables())
        routes = fleet_routes(tmp_path, [standin], breaker={}, health=PATIENT)
        (member,) = await stack.enter_async_context(fleet([silent.environment], routes, warm=warm))
        assert await asked_well(member)

        async def asked() -> bool:
            return silent.asked == 1

        await until(asked, 10, "the process looks at the table")
        for _ in range(REQUESTS):
            assert await asked_well(member)
        assert (silent.asked, silent.waiting) == (1, 1), "no request asks the table, and the table has not answered"
        assert (await member.status())["one"]["sharing"] == "degraded"
        silent.released.set()


async def test_requests_are_answered_while_a_table_that_worked_is_silent(tmp_path):
    if reason := azurite_service.unavailable():
        unavailable(reason)
    async with AsyncExitStack() as stack:
        standin = await stack.enter_async_context(serve(name="one"))
        proxy = await stack.enter_async_context(proxied(await stack.enter_async_context(tables())))
        routes = fleet_routes(tmp_path, [standin], breaker={}, health={**PATIENT, "refresh_seconds": 0.1})
        members = await stack.enter_async_context(fleet([proxy.environment], routes))
        (member,) = members
        await until(lambda: _asked_until_shared(member), 15, "the table works")
        proxy.open.clear()
        looks = len(proxy.methods)

        async def looked() -> bool:
            return await asked_well(member) and len(proxy.methods) > looks

        await until(looked, 10, "a look is held back")
        for _ in range(REQUESTS):
            assert await asked_well(member)
        assert len(proxy.methods) == looks + 1, "no request asks the table"
        proxy.open.set()
        await until(all_share(members), 15, "the table works again")


async def _asked_until_shared(member: Member) -> bool:
    return await asked_well(member) and (await member.status())["one"]["sharing"] == "shared"


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
