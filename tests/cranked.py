"""An event loop whose clock moves only when it has nothing else to do: minutes of waiting pass in no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
START = 1_000.0  # what the loop's clock shows when `run` begins


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: the time it should have waited is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits for something that will never happen")
        self.now += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._cranked = _Selector()
        super().__init__(self._cranked)

    def time(self) -> float:
        return self._cranked.now


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` with a clock that begins at START and jumps from one timer to the next."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
