"""Secrets by reference, `env:NAME` or `keyvault:name`: read when needed, kept for a while, read anew on demand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import inf

from pydantic import Field

from routing.fresh import Ages, Fresh
from routing.fresh import SecretUnavailable as SecretUnavailable
from routing.settings import Settings

_log = logging.getLogger(__name__)
Read = Callable[[str], Awaitable[str]]  # raises SecretUnavailable
UNRESOLVED = "@Microsoft.KeyVault("
RENEW = 0.9  # of the time to live: then the next reading starts, in the background


class SecretSettings(Settings):
    """`[secrets]`. Times in seconds."""

    ttl_seconds: float = Field(default=3_600.0, ge=1, le=86_400)  # how long a secret is used before it is read again
    read_seconds: float = Field(default=10.0, gt=0, le=60)  # for one reading, the vault's own retries included


class Secrets:
    """Reads each reference through the reader of its source."""

    def __init__(self, readers: Mapping[str, Read], clock: Callable[[], float], settings: SecretSettings) -> None:
        self._readers, self._clock, self._settings = readers, clock, settings
        self._kept: dict[str, Fresh[str]] = {}

    async def get(self, reference: str, *, fresh: bool = False, longest_age: float = inf) -> str:
        """The secret's value; `fresh` when what is kept was refused.

        Falls back on the last good value. Raises SecretUnavailable when there was never one.
        """
        return await self._of(reference).get(0 if fresh else longest_age)

    def peek(self, reference: str) -> str | None:
        """The value when it is at hand; else its reading is started."""
        return self._of(reference).peek()

    def older_than(self, reference: str, seconds: float) -> bool:
        """Whether the value at hand was read that long ago, or there is none."""
        return self._of(reference).older_than(seconds)

    async def aclose(self) -> None:
        """Ends every reading under way."""
        for kept in self._kept.values():
            await kept.aclose()

    def _of(self, reference: str) -> Fresh[str]:
        if reference not in self._kept:
            self._kept[reference] = Fresh(partial(self._read, reference), self._ages, self._clock)
        return self._kept[reference]

    def _ages(self, _: str) -> Ages:
        return Ages(renew=RENEW * self._settings.ttl_seconds, old=self._settings.ttl_seconds)

    async def _read(self, reference: str, _: bool) -> str:
        try:
            async with asyncio.timeout(self._settings.read_seconds):
                return checked(await self._from_source(reference), reference)
        except TimeoutError:
            limit = self._settings.read_seconds
            error = SecretUnavailable(f"{reference} was not read within {limit:g} s", passing=True)
        except SecretUnavailable as failure:
            error = failure
        _log.warning("A secret cannot be read: %s", error)
        raise error from None

    async def _from_source(self, reference: str) -> str:
        source, _, name = reference.partition(":")
        if source not in self._readers:
            raise SecretUnavailable(f"{reference} cannot be read: nothing reads {source!r} here")
        return await self._readers[source](name)


def from_environment(environment: Mapping[str, str]) -> Read:
    """The reader behind `env:`."""

    async def read(name: str) -> str:
        if name not in environment:
            raise SecretUnavailable(f"the app setting {name} is not set")
        return environment[name]

    return read


def checked(value: str, reference: str) -> str:
    """The value without the blanks and line ends that pasting adds. Raises SecretUnavailable for what is no secret."""
    value = value.strip()
    if not value:
        raise SecretUnavailable(f"{reference} is empty")
    if value.lower().startswith(UNRESOLVED.lower()):
        raise SecretUnavailable(f"{reference} is a Key Vault reference that the platform could not resolve")
    if not value.isascii() or not value.isprintable():
        raise SecretUnavailable(f"{reference} holds characters that no key has")
    return value
