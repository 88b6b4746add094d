"""The process's one Azure identity: managed in the cloud, `az login` or environment variables on a laptop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from routing.fresh import Ages, Fresh, SecretUnavailable

if TYPE_CHECKING:
    from types import TracebackType

    from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
    from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential

TOKEN_SECONDS = 15.0  # for one token: `az` on a laptop takes seconds, and Azure's own client retries
RENEW_BEFORE = 300.0  # seconds before a token expires; azure.identity asks its source for a new one from then on
WAIT_BEFORE = 30.0
AT_ONCE = 5.0  # seconds within which a client's first requests may each ask for the token


@dataclass(frozen=True, slots=True)
class _Use:
    """What a token is for."""

    scopes: tuple[str, ...]
    tenant_id: str | None
    enable_cae: bool


class Identity:
    """Gives tokens, each kept and renewed before it expires. Azure's own clients take it as their credential.

    azure.identity keeps tokens too, but it has no way to get past one that a service refuses, lets every waiting
    request ask for its own, and takes 0.2 s of CPU to import; so it is loaded late and in a thread.
    """

    def __init__(self, environment: Mapping[str, str], clock: Callable[[], float] = time.time) -> None:
        self._managed = "IDENTITY_ENDPOINT" in environment  # App Service and Functions set it, nobody else does
        self._client_id = environment.get("AZURE_CLIENT_ID") or None  # of a user-assigned identity
        self._clock = clock
        self._tokens: dict[_Use, Fresh[AccessTokenInfo]] = {}
        self._credential: DefaultAzureCredential | ManagedIdentityCredential | None = None
        self._opening = asyncio.Lock()

    def credential(self) -> ForClient:
        """For one client of Azure's SDK."""
        return ForClient(self, self._clock)

    async def token(self, scope: str, *, fresh: bool = False) -> str:
        """An access token for `scope`; `fresh` when the last one was refused. Raises SecretUnavailable."""
        try:
            return (await self._kept(_Use((scope,), None, False)).get(0 if fresh else inf)).token
        except Exception as error:  # whatever azure.identity and the libraries below it raise
            passing = not _says_no(error)
            raise SecretUnavailable(f"no token for {scope}: {type(error).__name__}; {HINT}", passing=passing) from None

    async def info(
        self, scopes: tuple[str, ...], options: TokenRequestOptions, *, anew: bool = False
    ) -> AccessTokenInfo:
        """A token with its times, for Azure's clients. Raises what azure.identity raises."""
        if options.get("claims"):  # the service names what the new token has to say
            return await self._ask(scopes, options, anew=False)
        use = _Use(scopes, options.get("tenant_id"), bool(options.get("enable_cae")))
        return await self._kept(use).get(0 if anew else inf)

    def due(self, token: AccessTokenInfo) -> bool:
        """Whether it is time to ask for another."""
        return self._ages(token).renew <= 0

    async def aclose(self) -> None:
        """Ends what is under way and closes the connections."""
        for kept in self._tokens.values():
            await kept.aclose()
        if self._credential is not None:
            await self._credential.close()

    def _kept(self, use: _Use) -> Fresh[AccessTokenInfo]:
        if use not in self._tokens:
            self._tokens[use] = Fresh(partial(self._read, use), self._ages, self._clock)
        return self._tokens[use]

    def _ages(self, token: AccessTokenInfo) -> Ages:
        left = token.expires_on - self._clock()
        recommended = (token.refresh_on or token.expires_on) - self._clock()
        return Ages(renew=min(recommended, left - RENEW_BEFORE), old=left - WAIT_BEFORE, useless=left)

    async def _read(self, use: _Use, anew: bool) -> AccessTokenInfo:
        options: Any = {"tenant_id": use.tenant_id} if use.tenant_id else {}
        if use.enable_cae:
            options["enable_cae"] = True
        return await self._ask(use.scopes, options, anew=anew)

    async def _ask(self, scopes: tuple[str, ...], options: TokenRequestOptions, *, anew: bool) -> AccessTokenInfo:
        async with asyncio.timeout(TOKEN_SECONDS):
            if anew:  # a credential of its own knows no earlier token
                async with await asyncio.to_thread(self._make) as credential:
                    return await credential.get_token_info(*scopes, options=options)
            return await (await self._opened()).get_token_info(*scopes, options=options)

    async def _opened(self) -> DefaultAzureCredential | ManagedIdentityCredential:
        async with self._opening:
            if self._credential is None:
                self._credential = await asyncio.to_thread(self._make)
        return self._credential

    def _make(self) -> DefaultAzureCredential | ManagedIdentityCredential:
        from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential

        if self._managed:
            return ManagedIdentityCredential(client_id=self._client_id)
        return DefaultAzureCredential(managed_identity_client_id=self._client_id)


class ForClient:
    """The identity as one client's credential.

    A client keeps its token and asks again only when it is due, or when the service refused it: then it gets a new one.
    """

    def __init__(self, identity: Identity, clock: Callable[[], float]) -> None:
        self._identity, self._clock = identity, clock
        self._given, self._at = "", 0.0

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """What Azure's clients call."""
        info = await self._identity.info(scopes, options or {})
        if info.token == self._given and self._clock() - self._at >= AT_ONCE and not self._identity.due(info):
            info = await self._identity.info(scopes, options or {}, anew=True)
        if info.token != self._given:
            self._given, self._at = info.token, self._clock()
        return info

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **_: Any,
    ) -> AccessToken:
        """The older form of `get_token_info`."""
        from azure.core.credentials import AccessToken

        given: dict[str, Any] = {"claims": claims, "tenant_id": tenant_id, "enable_cae": enable_cae}
        options: Any = {name: value for name, value in given.items() if value}
        info = await self.get_token_info(*scopes, options=options)
        return AccessToken(info.token, info.expires_on)

    async def close(self) -> None:
        """Nothing: the identity outlives the clients that use it."""

    async def __aenter__(self) -> ForClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self.close()


HINT = "in Azure give the app an identity and set AZURE_CLIENT_ID to its client id, on a laptop run `az login`"


def _says_no(error: Exception) -> bool:
    """Whether the identity's source answered and refused, or there is no identity at all."""
    from azure.core.exceptions import ClientAuthenticationError

    return isinstance(error, ClientAuthenticationError)
