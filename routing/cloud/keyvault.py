"""Secrets of one Key Vault, by the process's identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routing.cloud.identity import Identity

if TYPE_CHECKING:
    from azure.keyvault.secrets.aio import SecretClient


class VaultUnavailable(Exception):
    """A secret cannot be read; the message names it and the reason, never its value."""


class KeyVault:
    """Reads secrets. Loads the client at the first one."""

    def __init__(self, url: str, identity: Identity) -> None:
        self._url, self._identity = url, identity
        self._client: SecretClient | None = None

    async def read(self, name: str) -> str:
        """The value of `name` (its latest version) or `name/version`. Raises VaultUnavailable."""
        from azure.core.exceptions import AzureError

        name, _, version = name.partition("/")
        try:
            secret = await self._open().get_secret(name, version or None)
        except AzureError as error:
            status = getattr(error, "status_code", None)
            raise VaultUnavailable(f"secret {name} in {self._url}: {status or type(error).__name__}") from None
        return secret.value or ""

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _open(self) -> SecretClient:
        if self._client is None:
            from azure.keyvault.secrets.aio import SecretClient

            self._client = SecretClient(self._url, self._identity.credential(), retry_total=2)
        return self._client
