"""Who asks: keys are compared as digests in constant time, and nobody gets in when no caller is configured."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from hashlib import sha256

from routing.errors import Unauthenticated
from routing.secrets import Secrets, SecretUnavailable
from routing.types import Caller

_log = logging.getLogger(__name__)


class Callers:
    """The callers of the routes file. `keys` maps each secret reference to its caller."""

    def __init__(self, keys: Mapping[str, Caller], secrets: Secrets) -> None:
        self._keys, self._secrets = keys, secrets

    async def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """The caller whose key is in `Authorization: Bearer` or `api-key`. Raises Unauthenticated."""
        given = key_in(headers)
        if given is None:
            raise Unauthenticated("No API key: send it as 'Authorization: Bearer KEY' or in the 'api-key' header.")
        digest = _digest(given)
        found: Caller | None = None
        for reference, caller in self._keys.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(digest, await self._digest_of(reference)):
                found = caller
        if found is None:
            raise Unauthenticated("The API key is not valid here.")
        return found

    async def _digest_of(self, reference: str) -> bytes:
        try:
            return _digest(await self._secrets.get(reference))
        except SecretUnavailable as error:
            _log.warning("A caller cannot get in: %s", error)
            return b""


def key_in(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries; None without one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("api-key", "").strip() or None


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
