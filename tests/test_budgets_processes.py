"""Several worker processes share budgets and limits through Azurite, end well or badly, and lose what they may lose.

The flush interval is scaled down from 3 s to FLUSH, but where a process is to write because it ends. A request costs
at most and really 0.001 USD of output. Nothing here counts what happens within a fixed time.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from local import azurite as azurite_service
from local.providers import StandIn, serve
from local.standin_behaviour import Behaviour
from routing.bookkeeping import LIVING
from routing.cloud.usage_table import UsageTable
from routing.wiring import USAGE_TABLE
from tests.conftest import unavailable
from tests.fleet import ADMIN_KEY, PATIENCE, Member, Tables, ended_in_a_stream, fleet, tables, until
from tests.routes_for import CHAT_PATH, HELLO, routes_for

FLUSH = 0.5
NEVER = 60.0  # seconds between two writes: within a test, only a process that ends writes
TOKENS = 100
COST = TOKENS * 10.0 / 1e6  # USD for the output of one request; its input is worth less than a hundredth of that
ONE = COST * 1.05
BUDGET = 24 * COST
TARGET: Mapping[str, Any] = {"price": {"input": 0.1, "output": 10.0}, "max_output": TOKENS}


@pytest.fixture(autouse=True)
def _need_azurite() -> None:
    if reason := azurite_service.unavailable():
        unavailable(reason)


@asynccontextmanager
async def scene(
    folder: Path, processes: int, caller: Mapping[str, Any], host: str = "local.host", flush: float = FLUSH
) -> AsyncIterator[tuple[list[Member], StandIn, Tables]]:
    async with AsyncExitStack() as stack:
        alpha = await stack.enter_async_context(serve(name="alpha", behaviour=Behaviour(tokens=TOKENS)))
        service = await stack.enter_async_context(tables())
        callers = {
            "tester": {"key": "env:ROUTER_TEST_CALLER", **caller},
            "kim": {"key": "env:ROUTER_TEST_ADMIN", "role": "admin"},
        }
        path = folder / "routes.toml"
        text = routes_for([alpha], callers=callers, targets={"alpha": TARGET})
        path.write_text(f"{text}\n[ledger]\nflush_seconds = {flush}\nidle_seconds = 600\n")
        members = await stack.enter_async_context(fleet([service.environment] * processes, path, host=host))
        yield members, alpha, service


async def usage(member: Member) -> dict[str, Any]:
    """What the tester used, as all the rows tell it to an admin."""
    answer = await member.client.get("/v1/router/usage", headers={"authorization": f"Bearer {ADMIN_KEY}"})
    assert answer.status_code == 200, answer.text
    rows = {row["caller"]: row for row in answer.json()["data"]}
    assert answer.json()["complete"]
    return rows.get("tester", {"requests": 0, "failed": 0, "usd": 0.0})


async def answered(member: Member, requests: int) -> None:
    """Waits until that many answered requests are in the table, or in this member's own book."""

    async def told() -> bool:
        row = await usage(member)
        return bool(row["requests"] - row["failed"] >= requests)

    await until(told, PATIENCE, f"{requests} requests are written")


async def acquainted(members: Sequence[Member], service: Tables) -> None:
    """Waits until every process has said several words since the last of them said its first, and so heard of all."""
    rows = UsageTable(service.environment["ROUTER_TABLES"], USAGE_TABLE)
    first: dict[str, float] = {}

    async def all_heard() -> bool:
        words, _ = await rows.read(LIVING)
        for name, word in words.items():
            first.setdefault(name, word["at"])
        return (
            len(words) == len(members) and min(word["at"] for word in words.values()) > max(first.values()) + 3 * FLUSH
        )

    try:
        await until(all_heard, PATIENCE, "they know each other")
    finally:
        await rows.close()


async def refused(member: Member, at_once: int) -> httpx.Response:
    """Asks until one of the requests is refused."""
    while True:
        body = {"model": "chat", "messages": HELLO, "max_tokens": TOKENS}
        answers = await asyncio.gather(*(member.client.post(CHAT_PATH, json=body) for _ in range(at_once)))
        for answer in answers:
            assert answer.status_code in (200, 429), answer.text
            if answer.status_code == 429:
                return answer


async def spent_by(members: Sequence[Member], at_once: int = 3) -> None:
    """Has every member ask until its budget is used up, for as long as the month goes."""

    async def used_up(member: Member) -> bool:
        told = await refused(member, at_once)
        assert told.json()["error"]["code"] in ("budget_exceeded", "budget_unknown"), told.text
        return float(told.headers["retry-after-ms"]) > 60_000  # what others have set aside might come back sooner

    await asyncio.gather(*(until(partial(used_up, member), PATIENCE, "nothing is left") for member in members))


def monthly(usd: float) -> Mapping[str, Any]:
    """A budget that does not begin anew at midnight, in the middle of a test."""
    return {"budget": {"usd": usd, "per": "month"}}


async def test_processes_together_do_not_overrun_a_budget_by_more_than_a_request_each(tmp_path):
    async with scene(tmp_path, 3, monthly(BUDGET)) as (members, alpha, service):
        await acquainted(members, service)
        await spent_by(members)
        spent = alpha.asked * COST
        assert BUDGET - ONE <= spent <= BUDGET + len(members) * ONE
        await answered(members[0], alpha.asked)
        assert (await usage(members[0]))["usd"] == pytest.approx(spent, rel=0.05)
        refusal = await members[1].ask(max_tokens=TOKENS)
        assert "caller tester" in refusal.json()["error"]["message"]
        assert "resets at" in refusal.json()["error"]["message"]


async def test_processes_that_all_begin_with_the_first_request_may_add_a_tenth_each(tmp_path):
    """With an interval that a busy machine keeps, too: while it starts them it has time for little else."""
    async with scene(tmp_path, 3, monthly(BUDGET), flush=3 * FLUSH) as (members, alpha, _):
        await spent_by(members)
        assert BUDGET - ONE <= alpha.asked * COST <= 1.3 * BUDGET + len(members) * ONE


async def test_requests_per_minute_hold_for_all_processes_together(tmp_path):
    async with scene(tmp_path, 3, {"requests_per_minute": 60}) as (members, alpha, service):
        await acquainted(members, service)
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            while alpha.asked < 50:
                await asyncio.gather(*(refused(member, 2) for member in members))
                await asyncio.sleep(0.1)
        refilled = (time.monotonic() - began) * 60 / 60
        assert alpha.asked <= 60 + refilled + 2 * len(members)


async def test_a_process_that_is_asked_to_end_writes_down_everything(host, tmp_path):
    """A stream that runs meanwhile comes to its end, and is in the book, too."""
    async with scene(tmp_path, 2, {}, host, NEVER) as (members, alpha, _):
        ending, other = members
        for _ in range(5):
            assert (await ending.ask()).status_code == 200
        await ended_in_a_stream(ending, alpha, TOKENS)
        written = await usage(other)
        assert (written["requests"], written["output_tokens"]) == (alpha.asked, alpha.asked * TOKENS)
        assert alpha.asked == 6


async def test_a_process_that_is_killed_loses_what_it_has_not_written_and_nothing_else(tmp_path):
    async with scene(tmp_path, 2, {}) as (members, _, _):
        dying, other = members
        for _ in range(3):
            assert (await dying.ask()).status_code == 200
        await answered(other, 3)
        for _ in range(3):
            assert (await dying.ask()).status_code == 200
        dying.kill()
        assert 3 <= (await usage(other))["requests"] <= 6


async def test_a_budget_is_still_known_when_all_who_spent_it_are_gone(tmp_path):
    async with scene(tmp_path, 2, monthly(10 * COST)) as (members, alpha, _):
        first, second = members
        await spent_by([first], at_once=1)
        before = alpha.asked
        first.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(first.process.wait, PATIENCE)
        await spent_by([second], at_once=1)
        assert before >= 9
        assert alpha.asked <= 10 + 2
