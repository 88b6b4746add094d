"""The background task between keeper and store: looks while traffic flows, writes what the others have to hear."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from routing.board import KEY
from routing.keeper import HealthSettings, Keeper, Save, SetAside
from routing.store import Conflict, Store, StoreForbidden, Versioned

Kind = Literal[
    "opened",
    "half_open",
    "closed",
    "parked",
    "isolated",
    "forced_closed",
    "reset",
    "degraded",
    "recovered",
    "set_aside",
    "forbidden",
]
T = TypeVar("T")
LONGEST_SLEEP = 60.0  # seconds; the clock may jump while the task sleeps
LAST_WRITES = 5  # looks at the store before a process that ends gives up
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling. `here` is False for what this instance learned from the others."""

    kind: Kind
    target: str | None
    at: float  # epoch seconds of the store's clock
    here: bool
    detail: str = ""


class Sharing:
    """Drives `keeper` with `store`. `clock` gives epoch seconds; `tell` must not wait."""

    def __init__(
        self,
        keeper: Keeper,
        store: Store,
        settings: HealthSettings,
        clock: Callable[[], float],
        tell: Callable[[Event], None],
    ) -> None:
        self.shared_since: float | None = None
        self.tried = asyncio.Event()  # set after the first look, whatever came of it
        self._keeper, self._store, self._settings, self._clock, self._tell = keeper, store, settings, clock, tell
        self._wake = asyncio.Event()
        self._dozing = False
        self._closed = False
        self._well = False
        self._task: asyncio.Task[None] | None = None
        self._reported: str | None = None  # the version last reported as unreadable
        self._forbidden = False
        self._degraded = False

    def now(self) -> float:
        """Epoch seconds of the store's clock, on which all instances agree."""
        return self._clock() + self._store.offset

    def start(self) -> None:
        """Keeps the task running; wakes it when it has nothing to wait for."""
        if self._closed:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        elif self._dozing:
            self._wake.set()

    def wake(self) -> None:
        """Something may be due earlier than planned."""
        self._wake.set()

    async def step(self) -> None:
        """Does what is due now: one look at the store, and the writes that follow from it."""
        if not self._keeper.due(self.now()):
            return
        try:
            held = await self.limited(self._store.load(KEY))
        except Exception as error:  # whatever an adapter raises, sharing goes on
            self._missed(error)
        else:
            self._well = True
            await self._follow(held)
        self.tried.set()
        self._judge()

    async def limited(self, answer: Awaitable[T], *, patient: bool = False) -> T:
        """The store's answer within its time limit. Raises TimeoutError.

        The limit is wider while the store has not answered well: connecting and getting a token take longer than a
        read, and cut short they would never succeed.
        """
        limit = self._settings.store_timeout_seconds
        async with asyncio.timeout(limit if self._well and not patient else self._settings.store_connect_seconds):
            return await answer

    async def close(self) -> None:
        """Writes what the others have not heard, if the store lets it, and stops."""
        self._closed = True
        self._wake.set()
        if self._task and not self._task.done():
            await asyncio.wait([self._task], timeout=2 * self._settings.store_connect_seconds)
            self._task.cancel()
        for _ in range(LAST_WRITES):
            if not self._keeper.unpublished or not self._well:
                break
            self._keeper.hurry(self.now())
            await self.step()
        await self._store.close()

    async def _run(self) -> None:
        while not self._closed:
            now = self.now()
            at = self._keeper.next_at(now)
            if at is None or at > now:
                await self._sleep(None if at is None else min(at - now, LONGEST_SLEEP))
            if not self._closed:
                await self.step()

    async def _sleep(self, seconds: float | None) -> None:
        self._dozing = seconds is None
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            self._dozing = False
            self._wake.clear()

    async def _follow(self, held: Versioned | None) -> None:
        work = self._keeper.loaded(held, self.now())
        if self.shared_since is None and not self._degraded:
            self.shared_since = self.now()
        for item in work:
            await (self._save(item) if isinstance(item, Save) else self._set_aside(item))

    async def _save(self, item: Save) -> None:
        try:
            stored = await self.limited(self._store.save(KEY, item.document, item.etag))
        except Conflict:
            self._keeper.conflict(self.now())
        except Exception as error:
            self._missed(error, saving=True)
        else:
            self._keeper.saved(stored, self.now())

    async def _set_aside(self, item: SetAside) -> None:
        if self._reported != item.etag:
            self._reported = item.etag
            self._tell(Event("set_aside", None, self.now(), True, item.why))
        try:
            await self.limited(self._store.set_aside(KEY, item.etag, item.why))
        except Conflict:
            return  # another instance was faster
        except Exception as error:
            _log.warning("The unreadable document of breakers stays where it is: %s", type(error).__name__)

    def _missed(self, error: Exception, *, saving: bool = False) -> None:
        self._well = False
        self._complain(error)
        self._keeper.failed(self.now(), saving=saving)

    def _complain(self, error: Exception) -> None:
        if isinstance(error, StoreForbidden):
            if not self._forbidden:
                self._tell(Event("forbidden", None, self.now(), True, str(error)))
            self._forbidden = True
        _log.debug("The store failed: %s", type(error).__name__)

    def _judge(self) -> None:
        degraded = self._keeper.degraded_since is not None
        if degraded == self._degraded:
            return
        self._degraded = degraded
        self.shared_since = None if degraded else self.now()
        self._tell(Event("degraded" if degraded else "recovered", None, self.now(), True))
