"""Secrets by reference, `env:NAME` or `keyvault:name`: read when needed, kept for a while, read anew on demand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Read = Callable[[str], Awaitable[str]]
UNRESOLVED = "@Microsoft.KeyVault("


class SecretUnavailable(Exception):
    """The secret cannot be had; the message names it and says what to do, and never holds its value."""


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """Times in seconds."""

    ttl_seconds: float = 3_600.0


@dataclass(frozen=True, slots=True, repr=False)
class _Kept:
    value: str
    until: float


class Secrets:
    """Reads each reference through the reader of its source."""

    def __init__(self, readers: Mapping[str, Read], clock: Callable[[], float], settings: SecretSettings) -> None:
        self._readers, self._clock, self._settings = readers, clock, settings
        self._kept: dict[str, _Kept] = {}

    async def get(self, reference: str, *, fresh: bool = False) -> str:
        """The secret's value. Raises SecretUnavailable when it was never read and cannot be read now."""
        kept = self._kept.get(reference)
        if kept and not fresh and self._clock() < kept.until:
            return kept.value
        source, _, name = reference.partition(":")
        try:
            value = checked(await self._readers[source](name), reference)
        except SecretUnavailable:
            if kept:
                return kept.value
            raise
        self._kept[reference] = _Kept(value, self._clock() + self._settings.ttl_seconds)
        return value


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
    if value.startswith(UNRESOLVED):
        raise SecretUnavailable(f"{reference} holds a Key Vault reference that the platform could not resolve")
    if not value.isascii() or not value.isprintable():
        raise SecretUnavailable(f"{reference} holds characters that no key has")
    return value
