"""Access tokens of Microsoft Entra ID as callers: checked against the issuer's keys, mapped by their app roles."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from routing.errors import Forbidden, RouterError, Unauthenticated
from routing.fresh import Ages, Fresh
from routing.settings import Settings
from routing.types import Caller

if TYPE_CHECKING:
    import httpx
    from jwt import PyJWK

_log = logging.getLogger(__name__)
LOGIN = "https://login.microsoftonline.com"
ALGORITHMS = ["RS256"]  # what Entra signs with; the token does not get to choose
LEEWAY = 60.0  # seconds that the issuer's clock may be off
FETCH_SECONDS = 10.0
UNKNOWN_KEY_AGE = 30.0  # a token signed by a key we do not know has the keys read again, at most this often
KEYS = Ages(renew=3_600.0, old=86_400.0)  # Entra asks for daily; it announces new keys long before it uses them


def _https(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("write the issuer's https address, as it stands in the tokens' `iss`")
    return value


class EntraSettings(Settings):
    """`[entra]`: whose tokens are taken, and which caller each app role stands for."""

    tenant: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
    issuer: Annotated[str, AfterValidator(_https)] | None = None  # of another cloud, or any OpenID Connect issuer
    audience: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    roles: dict[str, str] = Field(min_length=1)  # app role -> caller; the first that a token has decides

    @classmethod
    def contradiction(cls, given: Mapping[str, Any]) -> str | None:
        one = (given.get("tenant") is None) != (given.get("issuer") is None)
        return None if one else "needs either tenant, the directory's id, or issuer"

    @property
    def issuers(self) -> tuple[str, ...]:
        """What `iss` may be. Tokens of an app registration are of version 1 unless its manifest asks for 2."""
        if self.issuer is not None:
            return (self.issuer,)
        return f"{LOGIN}/{self.tenant}/v2.0", f"https://sts.windows.net/{self.tenant}/"


class EntraTokens:
    """Finds out whose token it is. `callers` maps app roles to callers, in the order of the routes file."""

    def __init__(
        self, settings: EntraSettings, callers: Mapping[str, Caller], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._callers = settings, callers
        self._keys = Fresh(self._fetch_keys, lambda _: KEYS, clock)
        self._client: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def caller(self, token: str) -> Caller:
        """Raises Unauthenticated, Forbidden without a role known here, RouterError 503 without the issuer's keys."""
        roles = (await self._claims(token)).get("roles")
        given = set(filter(_is_text, roles)) if isinstance(roles, list) else set()
        for role, caller in self._callers.items():
            if role in given:
                return caller
        raise Forbidden("The access token is valid but has none of the app roles that are let in here.")

    async def check(self) -> None:
        """Whether the issuer's keys can be read. Raises RouterError, naming the issuer."""
        try:
            await self._read_keys()
        except RouterError as error:
            raise RouterError(f"{error} Their issuer is {self._settings.issuers[0]}.", status=error.status) from None

    async def aclose(self) -> None:
        """Ends what is under way and closes the connections."""
        await self._keys.aclose()
        if self._client is not None:
            await self._client.aclose()

    async def _claims(self, token: str) -> dict[str, Any]:
        """What a token says that is good in every way."""
        keys = await self._read_keys()
        import jwt

        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
            if kid not in keys:
                keys = await self._read_keys(UNKNOWN_KEY_AGE)
            return jwt.decode(
                token,
                keys[kid],
                algorithms=ALGORITHMS,
                audience=self._settings.audience,
                issuer=self._settings.issuers,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except KeyError:
            raise _refused("no key of its issuer has signed it") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _refused(_REASONS.get(type(error).__name__, "it cannot be verified")) from None

    async def _read_keys(self, longest_age: float = float("inf")) -> Mapping[str, PyJWK]:
        try:
            return await self._keys.get(longest_age)
        except RouterError:
            raise
        except Exception as error:  # whatever the network and the issuer's answers hold
            raise RouterError(
                "The keys to check access tokens with cannot be read just now.",
                status=503,
                code="callers_unavailable",
                retry_after=2.0,
            ) from error

    async def _fetch_keys(self, _: bool) -> Mapping[str, PyJWK]:
        """The issuer's signing keys by their id, found as OpenID Connect Discovery 1.0 describes."""
        issuer = self._settings.issuers[0]
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                about = await self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
                if about.get("issuer") != issuer:
                    raise ValueError("it calls itself by another name")
                return _usable(await self._get(_https(str(about.get("jwks_uri")))))
        except Exception as error:
            _log.warning("The keys of the token issuer %s cannot be read: %s", issuer, type(error).__name__)
            raise

    async def _get(self, url: str) -> dict[str, Any]:
        client = await self._opened()
        answer = (await client.get(url)).raise_for_status().json()
        if not isinstance(answer, dict):
            raise ValueError("not a JSON object")
        return answer

    async def _opened(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(_client)
        return self._client


_REASONS = {
    "ExpiredSignatureError": "it is expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAudienceError": "it is for another audience",
    "InvalidIssuerError": "it is of another issuer",
    "InvalidSignatureError": "its signature is wrong",
    "InvalidAlgorithmError": "it is signed by an algorithm that is not taken here",
    "MissingRequiredClaimError": "it lacks a claim that it must have",
}


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"The access token is not valid here: {why}.", code="invalid_token")


def _client() -> httpx.AsyncClient:
    """Takes a while, for the authorities it trusts and the cryptography that is loaded beside it."""
    import httpx
    import jwt.algorithms  # noqa: F401

    return httpx.AsyncClient(timeout=FETCH_SECONDS)


def _usable(document: Mapping[str, Any]) -> dict[str, PyJWK]:
    """The keys that sign by RSA. Raises PyJWKSetError without any usable key."""
    from jwt import PyJWKSet

    keys = PyJWKSet.from_dict(dict(document)).keys
    return {key.key_id: key for key in keys if key.key_id and key.key_type == "RSA" and key.public_key_use != "enc"}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
