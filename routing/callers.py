"""Who asks: by a key or an Entra token. Nobody gets in when no caller is configured."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Protocol

from routing.errors import RouterError, Unauthenticated
from routing.secrets import Secrets, SecretUnavailable
from routing.types import Caller

LONGEST_AGE = 30.0  # seconds; an unknown key may be one that was rotated since, so older readings are made anew
RETRY_AFTER = 2.0


class Tokens(Protocol):
    """Access tokens in place of keys."""

    async def caller(self, token: str) -> Caller:
        """Whose token it is. Raises Unauthenticated, Forbidden, or a RouterError when that cannot be found out."""
        ...

    async def check(self) -> None:
        """Whether their issuer's keys can be read. Raises RouterError."""
        ...


class Callers:
    """The callers of the routes file. `keys` maps each secret reference to its caller.

    Keys are compared as digests in constant time, each with all of those at hand. Keys that are still being read are
    waited for only by requests whose key is none of the others.
    """

    def __init__(self, keys: Mapping[str, Caller], secrets: Secrets, tokens: Tokens | None = None) -> None:
        self._keys, self._secrets, self.tokens = keys, secrets, tokens
        self._digests: dict[str, tuple[str, bytes]] = {}

    async def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """The caller whose key or token is in `Authorization: Bearer`, `api-key` or `x-api-key`.

        Raises Unauthenticated, of tokens also Forbidden, and a RouterError 503 when the keys cannot be had just now.
        """
        given = key_in(headers)
        if given is None:
            raise Unauthenticated("No API key: send it as 'Authorization: Bearer KEY' or in the 'api-key' header.")
        digest = _digest(given)
        if caller := self._match(digest):
            return caller
        if self.tokens is not None and is_token(given):
            return await self.tokens.caller(given)
        return await self._look_again(digest)

    def unreadable(self) -> list[str]:
        """The keys' references, where not one of them has a value and there are no tokens: nobody gets in."""
        known = any(self._secrets.peek(reference) is not None for reference in self._keys)
        return [] if known or self.tokens is not None else list(self._keys)

    def _match(self, digest: bytes) -> Caller | None:
        found: Caller | None = None
        for reference, caller in self._keys.items():  # all of them, so that the time tells nothing
            known = self._digest_of(reference)
            if known is not None and hmac.compare_digest(digest, known):
                found = caller
        return found

    def _digest_of(self, reference: str) -> bytes | None:
        value = self._secrets.peek(reference)
        if value is None:
            return None
        kept = self._digests.get(reference)
        if kept is None or kept[0] is not value:
            kept = self._digests[reference] = (value, _digest(value))
        return kept[1]

    async def _look_again(self, digest: bytes) -> Caller:
        """After the keys that are missing or not quite new have been read; whoever is found leaves at once."""
        pending = {
            asyncio.ensure_future(self._reading(reference))
            for reference in self._keys
            if self._secrets.older_than(reference, LONGEST_AGE)
        }
        away = False
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if caller := self._match(digest):
                    return caller
                away = away or any(reading.result() for reading in done)
        finally:
            for reading in pending:
                reading.cancel()
        if away:
            raise RouterError(
                "The keys of some callers cannot be read just now.",
                status=503,
                code="callers_unavailable",
                retry_after=RETRY_AFTER,
            )
        raise Unauthenticated("The API key is not valid here.")

    async def _reading(self, reference: str) -> bool:
        """Reads the key; True when it cannot be had for now."""
        try:
            await self._secrets.get(reference, longest_age=LONGEST_AGE)
        except SecretUnavailable as error:
            return error.passing
        return False


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries; None without one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("api-key", "").strip() or headers.get("x-api-key", "").strip() or None


def is_token(key: str) -> bool:
    """Whether it has the form of a signed token: three parts, the first a JSON object in base64."""
    return key.startswith("eyJ") and key.count(".") == 2


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
