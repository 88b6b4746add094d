"""Where the ledger's rows are kept: each instance writes its own with absolute values, and reads those of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Page = tuple[Mapping[str, Mapping[str, Any]], str | None]  # rows by name, and a mark to ask by for later changes


class Rows(Protocol):
    """Every method raises StoreUnavailable when the store is away."""

    @property
    def offset(self) -> float:
        """Seconds to add to the local clock to get the store's."""

    async def put(self, partition: str, row: str, document: Mapping[str, Any]) -> None:
        """Writes the row, whatever stood there. Written twice it is the same."""

    async def read(self, partition: str, mark: str | None = None) -> Page:
        """All rows, or those that changed since the page with that mark; some may come again."""

    async def drop(self, partition: str, row: str) -> None:
        """Removes the row, if it is there."""

    async def close(self) -> None:
        """Gives connections back."""


@dataclass
class InMemoryRows:
    """Rows of one process, and of several ledgers in a test."""

    offset: float = 0.0
    rows: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    changed: dict[tuple[str, str], int] = field(default_factory=dict)
    writes: int = 0

    async def put(self, partition: str, row: str, document: Mapping[str, Any]) -> None:
        self.writes += 1
        self.rows[partition, row], self.changed[partition, row] = document, self.writes

    async def read(self, partition: str, mark: str | None = None) -> Page:
        since = int(mark or 0)
        keys = [key for key in self.rows if key[0] == partition and self.changed[key] >= since]
        return {key[1]: self.rows[key] for key in keys}, str(self.writes)

    async def drop(self, partition: str, row: str) -> None:
        self.rows.pop((partition, row), None)

    async def close(self) -> None:
        """Nothing to give back."""


class Nowhere:
    """For a process without a store: it keeps what it knows to itself."""

    offset = 0.0

    async def put(self, partition: str, row: str, document: Mapping[str, Any]) -> None:
        """The ledger still has it."""

    async def read(self, partition: str, mark: str | None = None) -> Page:
        return {}, None

    async def drop(self, partition: str, row: str) -> None:
        """Nothing is there."""

    async def close(self) -> None:
        """Nothing to give back."""
