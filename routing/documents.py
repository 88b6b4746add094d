"""What every store hands around: a versioned document, and the ways in which a store fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCHEMA = 1  # the newest layout of a stored document that this build reads and writes
LARGEST = (
    400_000  # characters of ASCII JSON; Table Storage counts two bytes each and allows 1 MiB with keys and columns
)


@dataclass(frozen=True, slots=True)
class Versioned:
    """A document as the store holds it. `etag` names this very version and is what the next save must present."""

    document: Mapping[str, Any]
    etag: str
    schema: int = SCHEMA

    @property
    def newer(self) -> bool:
        """Written by a newer build: to be left alone."""
        return self.schema > SCHEMA


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A decision as it is stored: what it can be looked up by, and its JSON."""

    id: str
    at: float  # epoch seconds
    caller: str
    route: str
    text: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decisions to list, newest first: from `since` to `until` (epoch seconds), older than `after`."""

    limit: int
    caller: str | None = None
    route: str | None = None
    since: float | None = None
    until: float | None = None
    after: str | None = None


class StoreError(Exception):
    """The store did not do what it was asked.

    StoreError
    +-- Conflict            the document is not the version that was named: load again
    +-- TooLarge            the document would not fit into one entity
    +-- StoreUnavailable    no answer, or not one of the store's: carry on without it
        +-- StoreForbidden  the identity lacks a role: says which
    """


class Conflict(StoreError):
    """Another instance saved first."""


class TooLarge(StoreError):
    """The document exceeds what the store accepts as one entity."""


class StoreUnavailable(StoreError):
    """The store is away, too slow, or throttles."""


class StoreForbidden(StoreUnavailable):
    """The store refuses this identity."""


def encode(key: str, document: Mapping[str, Any]) -> str:
    """The document as ASCII JSON. Raises TooLarge."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    if len(text) > LARGEST:
        raise TooLarge(f"{key}: {len(text)} characters are more than the {LARGEST} that fit into an entity")
    return text


def decode(text: str) -> Mapping[str, Any]:
    """The document in `text`. Raises ValueError when it is not a JSON object."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError(f"a {type(document).__name__} is not a document")
    return document


def schema_of(document: Mapping[str, Any]) -> int:
    """The layout that the document names, SCHEMA when it names none."""
    schema = document.get("schema", SCHEMA)
    return schema if isinstance(schema, int) else SCHEMA
