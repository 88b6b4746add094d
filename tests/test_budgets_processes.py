"""Several worker processes share budgets and limits through Azurite, end well or badly, and lose what they may lose.

The flush interval is scaled down from 3 s to FLUSH. Every request costs at most and really 0.001 USD of output.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from local import azurite as azurite_service
from local.providers import StandIn, serve
from local.standin_behaviour import Behaviour
from tests.conftest import unavailable
from tests.fleet import ADMIN_KEY, Member, fleet, tables, until
from tests.routes_for import CHAT_PATH, HELLO, KEY, routes_for

FLUSH = 0.5
TOKENS = 100
COST = TOKENS * 10.0 / 1e6  # USD for the output of one request; its input is worth less than a hundredth of that
ONE = COST * 1.05
TARGET: Mapping[str, Any] = {"price": {"input": 0.1, "output": 10.0}, "max_output": TOKENS}


@pytest.fixture(autouse=True)
def _need_azurite() -> None:
    if reason := azurite_service.unavailable():
        unavailable(reason)


@asynccontextmanager
async def scene(folder: Path, processes: int, caller: Mapping[str, Any]) -> AsyncIterator[tuple[list[Member], StandIn]]:
    async with AsyncExitStack() as stack:
        alpha = await stack.enter_async_context(serve(name="alpha", behaviour=Behaviour(tokens=TOKENS)))
        service = await stack.enter_async_context(tables())
        callers = {
            "tester": {"key": "env:ROUTER_TEST_CALLER", **caller},
            "kim": {"key": "env:ROUTER_TEST_ADMIN", "role": "admin"},
        }
        path = folder / "routes.toml"
        text = routes_for([alpha], callers=callers, targets={"alpha": TARGET})
        path.write_text(f"{text}\n[ledger]\nflush_seconds = {FLUSH}\nidle_seconds = 5.0\n")
        members = await stack.enter_async_context(fleet([service.environment] * processes, path))
        yield members, alpha


async def usage(member: Member) -> dict[str, Any]:
    """What the tester used, as all the rows tell it to an admin."""
    answer = await member.client.get("/v1/router/usage", headers={"authorization": f"Bearer {ADMIN_KEY}"})
    assert answer.status_code == 200, answer.text
    rows = {row["caller"]: row for row in answer.json()["data"]}
    assert answer.json()["complete"]
    return rows.get("tester", {"requests": 0, "usd": 0.0})


async def storm(members: Sequence[Member], seconds: float, at_once: int = 3, key: str = KEY) -> list[int]:
    """Status codes of requests to every member, some at the same time, for so long."""
    codes: list[int] = []

    async def one(member: Member) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            body = {"model": "chat", "messages": HELLO, "max_tokens": TOKENS}
            headers = {"authorization": f"Bearer {key}"}
            codes.append((await member.client.post(CHAT_PATH, json=body, headers=headers)).status_code)
            await asyncio.sleep(0.02)

    await asyncio.gather(*(one(member) for member in members for _ in range(at_once)))
    return codes


async def test_processes_together_do_not_overrun_a_budget_by_more_than_a_request_each(tmp_path):
    budget = 60 * COST
    async with scene(tmp_path, 3, {"budget": {"usd": budget}}) as (members, alpha):
        await storm(members, 3.0, 1, key=ADMIN_KEY)  # they get to know each other
        alpha.reset()
        codes = await _until_spent(members, alpha, budget)
        spent = alpha.asked * COST
        assert set(codes) == {200, 429}
        assert codes.count(200) == alpha.asked
        assert 0.8 * budget <= spent <= budget + len(members) * ONE
        told = await until(lambda: _told(members[0], alpha.asked), 5, "every request is in the table")
        assert told is not None
        assert told["usd"] == pytest.approx(spent, rel=0.05)
        refused = await members[1].ask(max_tokens=TOKENS)
        assert refused.json()["error"]["code"] == "budget_exceeded"


async def test_processes_that_all_begin_with_the_first_request_may_add_a_tenth_each(tmp_path):
    budget = 60 * COST
    async with scene(tmp_path, 3, {"budget": {"usd": budget}}) as (members, alpha):
        await _until_spent(members, alpha, budget)
        assert 0.8 * budget <= alpha.asked * COST <= 1.3 * budget + len(members) * ONE


async def _until_spent(members: Sequence[Member], alpha: StandIn, budget: float) -> list[int]:
    """Status codes of a storm that lasts until most of the budget is spent, and well beyond."""
    codes: list[int] = []
    for _ in range(10):
        codes += await storm(members, 2.0)
        if alpha.asked * COST >= 0.8 * budget:
            break
    return codes + await storm(members, 3.0)


async def _told(member: Member, requests: int) -> dict[str, Any] | None:
    row = await usage(member)
    return row if row["requests"] - row.get("failed", 0) >= requests else None


async def test_requests_per_minute_hold_for_all_processes_together(tmp_path):
    async with scene(tmp_path, 3, {"requests_per_minute": 60}) as (members, alpha):
        await storm(members, 6.0)
        assert 30 <= alpha.asked <= 60 * 1.3 + 8 + len(members)


async def test_a_process_that_is_asked_to_end_writes_down_everything(tmp_path):
    async with scene(tmp_path, 2, {}) as (members, alpha):
        ending, other = members
        for _ in range(5):
            assert (await ending.ask()).status_code == 200
        ending.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(ending.process.wait, 10) == 0
        assert (await usage(other))["requests"] == alpha.asked == 5


async def test_a_process_that_is_killed_loses_one_flush_interval_at_most(tmp_path):
    async with scene(tmp_path, 2, {}) as (members, _):
        dying, other = members
        answered: list[float] = []
        while len(answered) < 40:
            assert (await dying.ask()).status_code == 200
            answered.append(time.monotonic())
            await asyncio.sleep(0.05)
        dying.kill()
        killed = time.monotonic()
        written = (await usage(other))["requests"]
        slack = 0.5  # for a write that was under way on a busy machine
        assert sum(at < killed - FLUSH - slack for at in answered) <= written <= 40


async def test_a_budget_is_still_known_when_all_who_spent_it_are_gone(tmp_path):
    async with scene(tmp_path, 2, {"budget": {"usd": 10 * COST}}) as (members, alpha):
        first, second = members
        codes = await storm([first], 3.0)
        assert 7 <= codes.count(200) <= 11
        before = alpha.asked
        first.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(first.process.wait, 10)
        codes = await storm([second], 2.0)
        assert alpha.asked - before <= 10 - before + 2
