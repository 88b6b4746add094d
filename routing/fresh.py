"""A value from elsewhere: read by one reader at a time, renewed before it is old, kept while its source is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")
LONGEST_REST = 60.0  # seconds between two readings of a source that fails; the first rest is 1 s, and it doubles


class SecretUnavailable(Exception):
    """A secret or token cannot be had; the message names it and says what to do, and never holds its value.

    `passing`: the source is away or slow, and asking again later may help.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Ages:
    """How many seconds after its reading a value is renewed in the background, is waited for, and is of no more use."""

    renew: float
    old: float
    useless: float = inf


@dataclass(frozen=True, slots=True, repr=False)
class _Kept(Generic[T]):
    value: T
    began: float  # when its reading did: what is changed after that is not in it
    ages: Ages


class Fresh(Generic[T]):
    """One value. `read(anew)` gets it; `anew` tells that the source's own caches will not do.

    A caller who leaves does not end a reading that others wait for. A failed renewal changes nothing until the value is
    useless; a source that fails is left alone for a while, except by who asks for a new reading at once.
    """

    def __init__(
        self, read: Callable[[bool], Awaitable[T]], ages: Callable[[T], Ages], clock: Callable[[], float]
    ) -> None:
        self._read, self._ages, self._clock = read, ages, clock
        self._kept: _Kept[T] | None = None
        self._error: Exception | None = None
        self._failures = 0
        self._rests_until = -inf
        self._flight: asyncio.Task[None] | None = None
        self._anew = False  # whether the flight ends with a reading that was asked for at once

    def peek(self) -> T | None:
        """The value when it is good now, without waiting; starts a reading when it is due."""
        age = self._age()
        if self._kept is None or age >= self._kept.ages.renew:
            self._start_unless_resting()
        if self._kept is None or age >= self._kept.ages.useless or (age >= self._kept.ages.old and not self._failures):
            return None
        return self._kept.value

    async def get(self, longest_age: float = inf) -> T:
        """The value; read anew when its reading began longer than `longest_age` seconds ago, with 0 in any case.

        Raises what the reading raised when there is no value to fall back on.
        """
        if longest_age <= 0:
            await self._read_anew()
        elif self.peek() is None or self.older_than(longest_age):
            self._start_unless_resting()
            await self._landed()
        elif self._anew:
            await self._landed()  # somebody found the value refused
        return self._value()

    def older_than(self, seconds: float) -> bool:
        """Whether the reading of its value began that long ago, or there is none."""
        return self._age() >= seconds

    async def aclose(self) -> None:
        """Ends the reading under way."""
        if self._flight is not None:
            self._flight.cancel()
            await self._landed()

    async def _read_anew(self) -> None:
        self._start(anew=True)
        self._anew = True  # also when a reading is under way: it may have begun before the value was refused
        await self._landed()

    def _start_unless_resting(self) -> None:
        if self._clock() >= self._rests_until:
            self._start(anew=False)

    def _start(self, *, anew: bool) -> None:
        if self._flight is None:
            self._flight = asyncio.get_running_loop().create_task(self._fly(anew))

    async def _landed(self) -> None:
        if self._flight is not None:
            await asyncio.wait({self._flight})

    async def _fly(self, anew: bool) -> None:
        try:
            await self._take(anew)
            if self._anew and not anew:
                await self._take(True)
        finally:
            self._flight, self._anew = None, False

    async def _take(self, anew: bool) -> None:
        began = self._clock()
        try:
            value = await self._read(anew)
            self._kept = _Kept(value, began, self._ages(value))
            self._error, self._failures, self._rests_until = None, 0, -inf
        except Exception as error:
            self._error = error
            self._rests_until = self._clock() + min(LONGEST_REST, 2.0 ** min(self._failures, 10))
            self._failures += 1

    def _age(self) -> float:
        return self._clock() - self._kept.began if self._kept else inf

    def _value(self) -> T:
        if self._kept is not None and self._age() < self._kept.ages.useless:
            return self._kept.value
        if self._error is None:
            raise SecretUnavailable("the reading was ended", passing=True)
        raise self._error.with_traceback(None)
