"""The background task between ledger and store: writes down what was used, and hears what the others use.

Each turn writes this instance's changed rows, then its word, then reads: of two instances that begin at the same
moment at least one hears of the other. It runs while there is traffic, and writes once more when the process ends.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from routing import chance
from routing.instances import Word, word_of
from routing.ledger import Ledger, LedgerSettings
from routing.ledger_store import Page, Rows
from routing.limits import DAY, day_of, start_of
from routing.usage import Line, lines_of

T = TypeVar("T")
LIVING = "living"  # the partition of the words
LATE_ROWS = 300.0  # seconds after its end in which a day's rows may still change
SLOW = 3.0  # seconds that a turn may take on a busy machine
FORGOTTEN = 3_600.0  # seconds after which the word of an instance that crashed is removed
MOST_DAYS = 400  # in one answer
AT_ONCE = 4  # rows written at the same time
LAG_FADES = 0.8  # from turn to turn, of the longest lag seen
HURRY = 0.2  # seconds between two turns of a process that is about to end
_log = logging.getLogger(__name__)


class Bookkeeping:
    """Drives `ledger` with `rows`. `clock` gives epoch seconds of the store's clock."""

    def __init__(
        self,
        ledger: Ledger,
        rows: Rows,
        settings: LedgerSettings,
        clock: Callable[[], float],
        random: Callable[[], float] = chance.random,
    ) -> None:
        self.holder = uuid.uuid4().hex[:16]
        self.tried = asyncio.Event()  # set after the first turn, whatever came of it
        self._ledger, self._rows, self._settings, self._clock, self._random = ledger, rows, settings, clock, random
        self._marks: dict[str, str | None] = {}
        self._read_at: dict[str, float] = {}  # day that is over -> when all its rows were read
        self._touched_at = 0.0
        self._wake = asyncio.Event()
        self._hurried = asyncio.Event()
        self._closed = self._telling = False
        self._failures = 0
        self._began: float | None = None  # the last turn, if it went well and there was no rest since
        self._task: asyncio.Task[None] | None = None
        ledger.changed = self.touch

    def touch(self) -> None:
        """A request is here, or was settled: there is something to do. Needs the running loop."""
        self._touched_at = self._clock()
        if self._task is None or self._task.done():
            if not self._closed:
                self._task = asyncio.get_running_loop().create_task(self._run())
        else:
            self._wake.set()

    def hurry(self) -> None:
        """The process is about to end: what is left to write is written as it comes."""
        self._hurried.set()
        self._wake.set()

    async def warm(self, timeout: float = 0.25) -> None:  # noqa: ASYNC109 - bounds the wait, not the work
        """Gives the first look at the store at most `timeout` seconds; it goes on in the background."""
        if self._ledger.rules.shared:
            self.touch()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self.tried.wait()

    async def step(self) -> None:
        """One turn. Whatever goes wrong is tried again at the next one."""
        began = self._clock()
        try:
            async with asyncio.timeout(self._settings.store_timeout_seconds):
                at, word = began, self._ledger.word(began)
                await self._write()
                if self._ledger.rules.shared:
                    await self._tell(word, at)
                    await self._hear()
            self._failures = 0
            self._measure(began)
        except Exception as error:  # whatever an adapter raises, requests go on
            self._failures, self._began = self._failures + 1, None
            _log.log(logging.WARNING if self._failures == 1 else logging.DEBUG, "Usage is not shared: %s", error)
        self.tried.set()

    def _measure(self, began: float) -> None:
        """Tells the ledger how long a word takes to be heard: our own turn, and one of the others with its pause.

        A busy machine or a slow store makes theirs as late as ours.
        """
        ended, before = self._clock(), self._began
        self._began = began
        if before is not None:
            self._ledger.lag = max(2 * ended - began - before, LAG_FADES * self._ledger.lag)

    async def usage(self, days: list[str]) -> tuple[list[Line], bool]:
        """The lines of all instances for these days, and whether the store gave its part of them."""
        own = [line for day in days for line in self._ledger.book.lines(day)]
        try:
            pages = [await self._limited(self._rows.read(day)) for day in days]
        except Exception as error:
            _log.warning("The usage of the other instances cannot be read: %s", error)
            return own, False
        rows = [(day, row) for day, page in zip(days, pages, strict=True) for row in self._foreign(page).values()]
        return own + [line for day, row in rows for line in lines_of(day, row)], True

    async def close(self) -> None:
        """Writes what is left, takes the word back, and stops."""
        self._closed = True
        self._wake.set()
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._last()
        await self._rows.close()

    async def _run(self) -> None:
        try:
            while not self._closed:
                await self.step()
                await self._sleep(self._pause())
                if self._idle():
                    await self._rest()
        except asyncio.CancelledError:
            if not self._closed:  # the loop ends, and nobody has closed us
                await asyncio.sleep(0)  # in which the requests that end with it are settled
                await self._last()
            raise

    def _pause(self) -> float:
        """Less than a cycle, so that a living instance is never taken for a dead one; more when the store is away."""
        cycle = self._ledger.cycle
        return min(60.0, cycle * (0.6 + 0.3 * self._random()) * 2.0 ** min(self._failures, 5))

    async def _sleep(self, seconds: float) -> None:
        if self._hurried.is_set():
            await asyncio.sleep(min(seconds, HURRY))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()

    def _idle(self) -> bool:
        if self._ledger.book.unwritten or self._ledger.under_way:
            return False
        return not self._ledger.rules.shared or self._clock() - self._touched_at > self._settings.idle_seconds

    async def _rest(self) -> None:
        """Until there is traffic again. The others must not reckon with us meanwhile."""
        self._wake.clear()
        if self._telling:
            with suppress(Exception):
                await self._limited(self._rows.drop(LIVING, self.holder))
        self._telling, self._began = False, None
        self._ledger.instances.silent()
        await self._wake.wait()

    async def _write(self) -> None:
        changed = sorted(self._ledger.book.unwritten)
        for at in range(0, len(changed), AT_ONCE):
            rows = changed[at : at + AT_ONCE]
            documents = [(day, number, self._ledger.book.row(day, number)) for day, number in rows]
            self._ledger.book.written(rows)
            try:
                await asyncio.gather(*(self._rows.put(day, f"{self.holder}-{n:03}", row) for day, n, row in documents))
            except BaseException:
                self._ledger.book.unwrite(rows)
                raise

    async def _tell(self, word: Word, at: float) -> None:
        """The word is older than the rows, so that what was settled since is in one of them at least."""
        await self._rows.put(LIVING, self.holder, word.document())
        self._telling = True
        self._ledger.instances.told(word.callers, at)

    async def _hear(self) -> None:
        """First the words, then the rows: what is settled meanwhile is counted twice rather than not at all."""
        living, _ = await self._rows.read(LIVING)
        for day in sorted(self._ledger.windows):
            await self._read(day)
        now, cycle = self._clock(), self._ledger.cycle
        words = {name: word for name, row in living.items() if name != self.holder and (word := word_of(row))}
        self._ledger.hear(self._ledger.instances.hear(words, now, 3 * cycle + SLOW))
        for name in [name for name, word in words.items() if now - word.at > FORGOTTEN]:
            await self._rows.drop(LIVING, name)

    async def _read(self, day: str) -> None:
        """Today's rows by what has changed; those of a day that is over once, and once more when no row can be late."""
        now, over = self._clock(), start_of(day) + DAY
        if now < over:
            page = await self._rows.read(day, self._marks.get(day))
            self._marks = {day: page[1]}
            self._ledger.others.take(day, self._foreign(page))
        elif self._read_at.get(day, 0.0) < min(now, over + LATE_ROWS) and (
            day not in self._read_at or now >= over + LATE_ROWS
        ):
            self._ledger.others.close(day)
            self._ledger.others.take(day, self._foreign(await self._rows.read(day)))
            self._ledger.others.close(day)
            self._read_at[day] = now

    def _foreign(self, page: Page) -> dict[str, Mapping[str, Any]]:
        return {name: row for name, row in page[0].items() if not name.startswith(self.holder)}

    async def _last(self) -> None:
        """What can still be said before the end."""
        with suppress(Exception):
            await self._limited(self._write())
        if self._telling:
            with suppress(Exception):
                await self._limited(self._rows.drop(LIVING, self.holder))
            self._telling = False

    async def _limited(self, answer: Awaitable[T]) -> T:
        async with asyncio.timeout(self._settings.store_timeout_seconds):
            return await answer


def days_between(first: str, last: str) -> list[str]:
    """Every day from the first to the last. Raises ValueError."""
    start, end = start_of(first), start_of(last)
    count = int((end - start) // DAY) + 1
    return [day_of(start + place * DAY) for place in range(min(count, MOST_DAYS))]
