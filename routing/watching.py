"""What becomes of one request while it goes on: its failed calls are collected, and whoever watches hears of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from routing.types import Attempt, Decision


class Watch(Protocol):
    """Somebody who looks on. Nothing here waits, and nothing raises."""

    def planned(self, decision: Decision) -> None:
        """The plan is made, and nobody was asked yet."""

    def asking(self, target: str, number: int) -> None:
        """A call begins; `number` counts from 1 over the whole request."""

    def failed(self, attempt: Attempt) -> None:
        """That call has failed."""


@dataclass(slots=True)
class Attempts:
    """The calls of one walk that failed. They stay when the walk is left in the middle."""

    watch: Watch | None = None
    failed: list[Attempt] = field(default_factory=list)

    def begin(self, target: str) -> None:
        if self.watch:
            self.watch.asking(target, len(self.failed) + 1)

    def add(self, attempt: Attempt) -> None:
        self.failed.append(attempt)
        if self.watch:
            self.watch.failed(attempt)
