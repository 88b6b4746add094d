"""Decisions of all instances, kept for days: written in batches that nobody waits for, read by id and in pages."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from pydantic import Field
from pydantic_core import from_json, to_json

from routing.documents import DecisionRow, Wanted
from routing.settings import Settings
from routing.types import Decision

DAY = 86_400.0
WRITE_SECONDS = 1.0  # between two writes; others read a decision that late
LONGEST_WAIT = 60.0  # the same while the store is away
MOST_WAITING = 10_000  # decisions that are not written yet; beyond it the oldest are dropped
AT_ONCE = 100  # in one write
READ_SECONDS = 10.0  # for a page
_ID = re.compile(r"dec_[0-9a-f]{32}")
_log = logging.getLogger(__name__)


class DecisionSettings(Settings):
    """`[decisions]`."""

    retention_days: int = Field(default=30, ge=1, le=3_650)  # in the table; older ones are removed once a day


class Shelf(Protocol):
    """Where the rows lie. Every method raises StoreError when the store is away."""

    async def put(self, rows: Sequence[DecisionRow]) -> None:
        """Writes rows; written twice they are the same."""

    async def get(self, decision_id: str) -> str | None:
        """One decision's JSON."""

    async def page(self, wanted: Wanted) -> Sequence[str]:
        """Decisions' JSON, newest first."""

    async def remove_before(self, at: float) -> int:
        """Removes whole days that were over by then (epoch seconds). Returns how many decisions that were."""

    async def close(self) -> None:
        """Gives connections back."""


@dataclass(frozen=True, slots=True)
class Page:
    """Decisions as JSON objects, newest first; not `complete` when the store gave no answer."""

    bodies: Sequence[Mapping[str, Any]]
    complete: bool


class Archive:
    """The decisions on `shelf`; without one nothing is kept. `clock` gives epoch seconds."""

    pause: ClassVar[float] = WRITE_SECONDS

    def __init__(self, shelf: Shelf | None, settings: DecisionSettings, clock: Callable[[], float] = time.time) -> None:
        self._shelf, self._settings, self._clock = shelf, settings, clock
        self._waiting: OrderedDict[str, Decision] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._hurried = asyncio.Event()
        self.lost = 0

    def tell(self, decision: Decision) -> None:
        """Takes a decision that is complete. Needs the running loop."""
        if self._shelf is None or not _ID.fullmatch(decision.id):
            return
        self._waiting[decision.id] = decision
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popitem(last=False)
            self.lost += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(self._shelf))

    async def find(self, decision_id: str) -> Mapping[str, Any] | None:
        """A decision of any instance. Raises StoreError and TimeoutError."""
        if self._shelf is None or not _ID.fullmatch(decision_id):
            return None
        async with asyncio.timeout(READ_SECONDS):
            text = await self._shelf.get(decision_id)
        return None if text is None else from_json(text)

    async def page(self, wanted: Wanted) -> Page:
        """Decisions of all instances."""
        if self._shelf is None:
            return Page((), complete=True)
        try:
            async with asyncio.timeout(READ_SECONDS):
                texts = await self._shelf.page(wanted)
        except Exception as error:  # whatever an adapter raises, there are this instance's own
            _log.warning("The decisions of the other instances cannot be read: %s", error)
            return Page((), complete=False)
        return Page([from_json(text) for text in texts], complete=True)

    async def sweep(self) -> int:
        """Removes what is older than `retention_days`. Returns how many that were. Raises StoreError."""
        if self._shelf is None:
            return 0
        return await self._shelf.remove_before(self._clock() - self._settings.retention_days * DAY)

    def hurry(self) -> None:
        """The process is about to end: what waits is written as it comes."""
        self._hurried.set()

    async def close(self) -> None:
        """Writes what is left, if the store lets it, and stops."""
        self._hurried.set()
        if self._task is not None:
            try:
                async with asyncio.timeout(READ_SECONDS / 2):
                    await self._task
            except TimeoutError:
                self.lost += len(self._waiting)
        if self._shelf is not None:
            await self._shelf.close()

    async def _run(self, shelf: Shelf) -> None:
        """As long as something waits."""
        while self._waiting:
            if not self._hurried.is_set():
                await self._sleep()
            try:
                await self._write(shelf)
                self._failures = 0
            except Exception as error:  # whatever an adapter raises, requests go on
                self._failures += 1
                _log.log(logging.WARNING if self._failures == 1 else logging.DEBUG, "Decisions wait: %s", error)
                if self._hurried.is_set():
                    return

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(min(LONGEST_WAIT, self.pause * 2.0 ** min(self._failures, 6))):
                await self._hurried.wait()
        except TimeoutError:
            return

    async def _write(self, shelf: Shelf) -> None:
        while self._waiting:
            batch = [self._waiting[name] for name in list(self._waiting)[:AT_ONCE]]
            rows = []
            for decision in batch:
                rows.append(row_of(decision))
                await asyncio.sleep(0)  # other requests get their turn
            await shelf.put(rows)
            for decision in batch:
                if self._waiting.get(decision.id) is decision:
                    del self._waiting[decision.id]


def row_of(decision: Decision) -> DecisionRow:
    """The decision as it is stored."""
    text = to_json(asdict(decision)).decode()
    return DecisionRow(decision.id, decision.at, decision.caller, decision.plan.route, text)
