"""Shared state as versioned documents: load, change, save only if nobody else saved in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from routing import chance
from routing.documents import (
    Conflict,
    StoreError,
    StoreForbidden,
    StoreUnavailable,
    TooLarge,
    Versioned,
    decode,
    encode,
    schema_of,
)

__all__ = [
    "Conflict",
    "InMemoryStore",
    "Store",
    "StoreError",
    "StoreForbidden",
    "StoreUnavailable",
    "TooLarge",
    "Versioned",
    "update",
]

ATTEMPTS = 5


class Store(Protocol):
    """One document per key. Every method raises StoreUnavailable when the store is away."""

    @property
    def offset(self) -> float:
        """Seconds to add to the local clock to get the store's, 0.0 before the first answer."""

    async def load(self, key: str) -> Versioned | None:
        """The document of `key`, or None."""

    async def load_all(self) -> Mapping[str, Versioned]:
        """All documents by key, with one query."""

    async def save(self, key: str, document: Mapping[str, Any], etag: str | None) -> Versioned:
        """Writes if the stored version is still `etag` (None: if there is none). Raises Conflict, TooLarge."""

    async def set_aside(self, key: str, etag: str, why: str) -> None:
        """Moves a document that nobody can read to where `load` does not see it. Raises Conflict."""

    async def close(self) -> None:
        """Gives connections back."""


class InMemoryStore:
    """A store for one process, and for tests."""

    offset = 0.0

    def __init__(self) -> None:
        self._documents: dict[str, Versioned] = {}
        self._aside: list[tuple[str, Versioned, str]] = []
        self._versions = 0

    @property
    def aside(self) -> tuple[tuple[str, Versioned, str], ...]:
        """What was set aside: key, document, why."""
        return tuple(self._aside)

    async def load(self, key: str) -> Versioned | None:
        return self._documents.get(key)

    async def load_all(self) -> Mapping[str, Versioned]:
        return dict(self._documents)

    async def save(self, key: str, document: Mapping[str, Any], etag: str | None) -> Versioned:
        self._check(key, etag)
        self._versions += 1
        saved = Versioned(decode(encode(key, document)), f"v{self._versions}", schema_of(document))
        self._documents[key] = saved
        return saved

    async def set_aside(self, key: str, etag: str, why: str) -> None:
        self._check(key, etag)
        self._aside.append((key, self._documents.pop(key), why))

    async def close(self) -> None:
        """Nothing to give back."""

    def _check(self, key: str, etag: str | None) -> None:
        held = self._documents.get(key)
        if (held.etag if held else None) != etag:
            raise Conflict(f"{key}: another version was saved")


Change = Callable[[Mapping[str, Any] | None], Mapping[str, Any] | None]


async def update(
    store: Store,
    key: str,
    change: Change,
    *,
    attempts: int = ATTEMPTS,
    random: Callable[[], float] = chance.random,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Versioned | None:
    """Applies the pure `change` to the document of `key`; returns what the store then holds.

    `change` gets None for an absent document. Nothing is saved when it returns its argument, or when a newer build
    wrote the document. A conflict loads again after a jittered wait, `attempts` times in all, then raises Conflict.
    """
    for attempt in range(1, attempts + 1):
        held = await store.load(key)
        before = held.document if held else None
        if held and held.newer:
            return held
        after = change(before)
        if after is before or after is None:
            return held
        try:
            return await store.save(key, after, held.etag if held else None)
        except Conflict:
            if attempt == attempts:
                raise
            await sleep(random() * 0.02 * 2**attempt)
    return None
