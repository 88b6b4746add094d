"""Secrets of one Key Vault, by the process's identity."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from routing.cloud.identity import Identity
from routing.fresh import SecretUnavailable

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError
    from azure.keyvault.secrets.aio import SecretClient

# Of the SDK, within one reading, for hiccups: who reads has a time limit, and rests longer than this in between.
RETRIES = {"retry_total": 2, "retry_backoff_factor": 0.2}
ROLE = "Key Vault Secrets User"


class KeyVault:
    """Reads secrets. Loads the client at the first one, in a thread: it takes 0.3 s of CPU."""

    def __init__(self, url: str, identity: Identity) -> None:
        self._url, self._identity = url.rstrip("/"), identity
        self._client: SecretClient | None = None
        self._opening = asyncio.Lock()

    async def read(self, name: str) -> str:
        """The value of `name` (its latest version) or `name/version`. Raises SecretUnavailable."""
        client = await self._opened()
        from azure.core.exceptions import AzureError

        name, _, version = name.partition("/")
        try:
            return (await client.get_secret(name, version or None)).value or ""
        except (AzureError, ValueError) as error:  # ValueError: what answers there is no vault
            raise self._unavailable(name, error) from None

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()

    async def _opened(self) -> SecretClient:
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._make)
        return self._client

    def _make(self) -> SecretClient:
        from azure.keyvault.secrets.aio import SecretClient

        return SecretClient(self._url, self._identity.credential(), **RETRIES)

    def _unavailable(self, name: str, error: AzureError | ValueError) -> SecretUnavailable:
        status = getattr(error, "status_code", None)
        what = f"secret {name} in {self._url}"
        if isinstance(error, ValueError):
            return SecretUnavailable(f"{what}: what answers there is no Key Vault of this cloud")
        code = _code(error)
        which = f"--vault-name {(urlsplit(self._url).hostname or '').split('.')[0]} --name {name}"
        why = {
            "SecretDisabled": f"it is disabled (az keyvault secret set-attributes {which} --enabled true)",
            "SecretNotFound": f"it does not exist (az keyvault secret set {which} --value VALUE)",
            "ForbiddenByRbac": f'give the identity the role "{ROLE}" on the vault',
            "ForbiddenByPolicy": "the vault's access policy does not let the identity get secrets",
            "ForbiddenByFirewall": "the vault's firewall keeps this app out",
        }.get(code)
        if why is None and status == 401:
            why = "the vault refuses the identity's token; are both of the same tenant?"
        lasting = status is not None and 400 <= status < 500 and status not in (408, 429)
        return SecretUnavailable(f"{what}: {why or _plain(status, code, error)}", passing=not lasting)


def _code(error: AzureError) -> str:
    """The innermost code of the vault's answer: `Forbidden` alone does not say why."""
    told = getattr(error, "error", None)
    inner = getattr(told, "innererror", None)
    if isinstance(inner, dict) and isinstance(inner.get("code"), str):
        return str(inner["code"])
    return str(getattr(told, "code", None) or "")


def _plain(status: int | None, code: str, error: AzureError) -> str:
    return " ".join(str(part) for part in (status, code) if part) or type(error).__name__
