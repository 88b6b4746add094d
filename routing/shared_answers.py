"""The second level of the cache: answers that all instances share, for routes that ask for it.

A request waits for the store for a moment at most, and goes on without it; a store that is late or away is left alone
for a while. Answers are written when nobody waits any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from routing.cache import Kept
from routing.documents import TooLarge
from routing.sealed import seal, unseal

LARGEST = 256 * 1024  # bytes of one answer: larger ones stay with the instance that got them
MOST_WRITES = 32  # under way; beyond it answers are not shared
STORE_SECONDS = 5.0  # for one look or write that nobody waits for any more
LONGEST_REST = 30.0  # seconds between two looks at a store that is away
LAST_SECONDS = 2.0  # in which a process that ends still shares answers
_log = logging.getLogger(__name__)


class AnswerShelf(Protocol):
    """Where the sealed answers lie. Every method raises StoreError when the store is away."""

    async def put(self, name: str, until: float, text: str) -> None:
        """Writes an answer that is good until then (epoch seconds), whatever stood there. Raises TooLarge."""

    async def get(self, name: str) -> tuple[float, str] | None:
        """Until when the answer is good, and the answer."""

    async def remove_before(self, at: float) -> int:
        """Removes answers that were good until then (epoch seconds). Returns how many that were."""

    async def close(self) -> None:
        """Gives connections back."""


class SharedAnswers:
    """The answers on `shelf`; without one nothing is shared. `clock` gives epoch seconds."""

    def __init__(self, shelf: AnswerShelf | None, clock: Callable[[], float] = time.time) -> None:
        self._shelf, self._clock = shelf, clock
        self._looks: dict[str, asyncio.Task[tuple[Kept, float] | None]] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self._failures, self._rests_until = 0, 0.0

    async def look(self, key: str, seconds: float) -> tuple[Kept, float] | None:
        """The answer and for how many seconds it is good, if the store gives it within `seconds`. Never raises."""
        if self._shelf is None or self._clock() < self._rests_until:
            return None
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = asyncio.get_running_loop().create_task(self._look(self._shelf, key))
            look.add_done_callback(lambda _: self._looks.pop(key, None))
        done, _ = await asyncio.wait({look}, timeout=seconds)
        if not done:
            self._failed(f"it did not answer within {seconds:g} s")
            return None
        return look.result()

    def put(self, key: str, kept: Kept, seconds: float) -> None:
        """Shares an answer, which is good for so long. Nobody waits for it. Needs the running loop."""
        if self._shelf is not None and kept.size <= LARGEST and len(self._writes) < MOST_WRITES:
            write = self._write(self._shelf, key, kept, self._clock() + seconds)
            task = asyncio.get_running_loop().create_task(write)
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def sweep(self) -> int:
        """Removes what is good for nothing any more. Returns how many that were. Raises StoreError."""
        return await self._shelf.remove_before(self._clock()) if self._shelf else 0

    async def close(self) -> None:
        """Ends the looks, lets the writes come to their end, and stops."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=LAST_SECONDS)
        left = [*self._looks.values(), *self._writes]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._shelf is not None:
            await self._shelf.close()

    async def _look(self, shelf: AnswerShelf, key: str) -> tuple[Kept, float] | None:
        name, secret = _split(key)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                found = await shelf.get(name)
        except Exception as error:  # whatever an adapter raises, requests go on
            self._failed(str(error) or type(error).__name__)
            return None
        self._failures, self._rests_until = 0, 0.0
        if found is None or (left := found[0] - self._clock()) <= 0:
            return None
        kept = await asyncio.to_thread(unseal, found[1], secret, name)
        return (kept, left) if kept else None

    async def _write(self, shelf: AnswerShelf, key: str, kept: Kept, until: float) -> None:
        name, secret = _split(key)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await shelf.put(name, until, await asyncio.to_thread(seal, kept, secret, name))
        except TooLarge:
            return
        except Exception as error:
            _log.log(logging.DEBUG if self._failures else logging.WARNING, "An answer is not shared: %s", error)

    def _failed(self, why: str) -> None:
        _log.log(logging.DEBUG if self._failures else logging.WARNING, "Shared answers are not looked up: %s", why)
        self._rests_until = self._clock() + min(LONGEST_REST, 2.0 ** min(self._failures, 10))
        self._failures += 1


def _split(key: str) -> tuple[str, bytes]:
    """Of a key the half that names the answer, and the half that never leaves the process."""
    half = len(key) // 2
    return key[:half], bytes.fromhex(key[half:])
