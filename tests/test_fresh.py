"""A value that is read by one reader at a time, renewed in the background and kept while its source is away."""

from __future__ import annotations

import asyncio

import pytest

from routing.fresh import LONGEST_REST, Ages, Fresh
from tests.conftest import Clock

AGES = Ages(renew=50, old=60, useless=100)


class Source:
    """Gives 1, 2, 3 and so on; `gate` holds readings up, `away` makes them fail."""

    def __init__(self) -> None:
        self.began, self.given, self.away = 0, 0, False
        self.anew: list[bool] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, anew: bool) -> int:
        self.began += 1
        self.anew.append(anew)
        await self.gate.wait()
        if self.away:
            raise ConnectionError("away")
        self.given += 1
        return self.given


class Bench:
    def __init__(self, clock: Clock) -> None:
        self.clock, self.source = clock, Source()
        self.fresh = Fresh(self.source, lambda _: AGES, clock)

    async def settled(self) -> None:
        """Lets every task run as far as it gets."""
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def bench(clock: Clock) -> Bench:
    return Bench(clock)


async def test_many_who_ask_at_once_share_one_reading(bench: Bench) -> None:
    assert await asyncio.gather(*(bench.fresh.get() for _ in range(50))) == [1] * 50
    assert bench.source.began == 1


async def test_a_caller_who_leaves_does_not_end_the_reading_of_the_others(bench: Bench) -> None:
    bench.source.gate.clear()
    first, second = (asyncio.ensure_future(bench.fresh.get()) for _ in range(2))
    await bench.settled()
    first.cancel()
    await bench.settled()
    bench.source.gate.set()
    assert await second == 1
    assert bench.source.began == 1
    assert first.cancelled()


async def test_a_value_is_renewed_in_the_background_before_it_is_old(bench: Bench) -> None:
    await bench.fresh.get()
    bench.clock.advance(50)
    bench.source.gate.clear()
    assert [await bench.fresh.get() for _ in range(3)] == [1, 1, 1]
    await bench.settled()
    assert bench.source.began == 2
    bench.source.gate.set()
    await bench.settled()
    assert await bench.fresh.get() == 2


async def test_an_old_value_is_waited_for(bench: Bench) -> None:
    await bench.fresh.get()
    bench.clock.advance(60)
    assert bench.fresh.peek() is None
    assert await bench.fresh.get() == 2


async def test_the_age_counts_from_the_beginning_of_the_reading(bench: Bench) -> None:
    bench.source.gate.clear()
    reading = asyncio.ensure_future(bench.fresh.get())
    await bench.settled()
    bench.clock.advance(60)
    bench.source.gate.set()
    assert await reading == 1
    assert await bench.fresh.get() == 2


async def test_the_last_good_value_is_kept_while_the_source_is_away_and_nobody_waits_for_it(bench: Bench) -> None:
    await bench.fresh.get()
    bench.source.away = True
    bench.clock.advance(60)
    assert await bench.fresh.get() == 1
    bench.clock.advance(1)
    bench.source.gate.clear()
    assert await bench.fresh.get() == 1  # although a reading hangs
    assert bench.fresh.peek() == 1


async def test_a_useless_value_is_not_given(bench: Bench) -> None:
    await bench.fresh.get()
    bench.source.away = True
    bench.clock.advance(100)
    assert bench.fresh.peek() is None
    with pytest.raises(ConnectionError):
        await bench.fresh.get()


async def test_a_source_that_fails_is_left_alone_for_longer_and_longer(bench: Bench) -> None:
    bench.source.away = True
    rests = []
    for _ in range(9):
        with pytest.raises(ConnectionError):
            await bench.fresh.get()
        began, seconds = bench.source.began, 0
        while bench.source.began == began:
            bench.clock.advance(1)
            seconds += 1
            bench.fresh.peek()
            await bench.settled()
        rests.append(seconds)
    assert rests == [1, 2, 4, 8, 16, 32, LONGEST_REST, LONGEST_REST, LONGEST_REST]


async def test_after_a_success_the_rest_is_short_again(bench: Bench) -> None:
    bench.source.away = True
    for _ in range(4):
        with pytest.raises(ConnectionError):
            await bench.fresh.get()
        bench.clock.advance(60)
    bench.source.away = False
    assert await bench.fresh.get() == 1
    bench.source.away = True
    bench.clock.advance(60)
    assert await bench.fresh.get() == 1
    bench.clock.advance(1)
    bench.fresh.peek()
    await bench.settled()
    assert bench.source.began == 7


async def test_who_asks_anew_gets_past_the_rest_and_tells_the_source(bench: Bench) -> None:
    bench.source.away = True
    with pytest.raises(ConnectionError):
        await bench.fresh.get()
    bench.source.away = False
    assert await bench.fresh.get(0) == 1
    assert bench.source.anew == [False, True]


async def test_many_who_ask_anew_share_one_reading(bench: Bench) -> None:
    await bench.fresh.get()
    assert await asyncio.gather(*(bench.fresh.get(0) for _ in range(50))) == [2] * 50


async def test_while_a_value_is_read_anew_nobody_gets_the_refused_one(bench: Bench) -> None:
    await bench.fresh.get()
    bench.source.gate.clear()
    anew = asyncio.ensure_future(bench.fresh.get(0))
    await bench.settled()
    other = asyncio.ensure_future(bench.fresh.get())
    await bench.settled()
    assert not other.done()
    bench.source.gate.set()
    assert list(await asyncio.gather(anew, other)) == [2, 2]


async def test_a_reading_that_began_before_the_refusal_is_not_enough(bench: Bench) -> None:
    await bench.fresh.get()
    bench.clock.advance(50)
    bench.source.gate.clear()
    bench.fresh.peek()
    await bench.settled()
    anew, other = asyncio.ensure_future(bench.fresh.get(0)), asyncio.ensure_future(bench.fresh.get())
    await bench.settled()
    bench.source.gate.set()
    assert list(await asyncio.gather(anew, other)) == [3, 3]
    assert bench.source.anew == [False, False, True]


async def test_asking_anew_in_vain_gives_the_last_good_value(bench: Bench) -> None:
    await bench.fresh.get()
    bench.source.away = True
    assert await bench.fresh.get(0) == 1


@pytest.mark.parametrize(("age", "readings"), [(29, 1), (30, 2)])
async def test_a_longest_age_has_older_values_read_again(bench: Bench, age: int, readings: int) -> None:
    await bench.fresh.get()
    bench.clock.advance(age)
    assert await bench.fresh.get(30) == readings


async def test_closing_ends_the_reading_and_whoever_waits_is_told(bench: Bench) -> None:
    bench.source.gate.clear()
    waiting = asyncio.ensure_future(bench.fresh.get())
    await bench.settled()
    await bench.fresh.aclose()
    with pytest.raises(Exception, match="the reading was ended"):
        await waiting


async def test_an_error_raised_again_and_again_does_not_grow(bench: Bench) -> None:
    bench.source.away = True
    depths = set()
    for _ in range(5):
        with pytest.raises(ConnectionError) as caught:
            await bench.fresh.get()
        depths.add(len(caught.traceback))
    assert len(depths) == 1
