"""The process's one Azure identity: managed in the cloud, `az login` or environment variables on a laptop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential


class IdentityUnavailable(Exception):
    """No token is to be had; the message says for what."""


class Identity:
    """Gives tokens. Loads azure.identity when the first one is asked for, because that takes 0.2 s of CPU."""

    def __init__(self, client_id: str | None) -> None:
        self._client_id = client_id  # of the user-assigned identity, app setting AZURE_CLIENT_ID
        self._credential: AsyncTokenCredential | None = None

    def credential(self) -> AsyncTokenCredential:
        """The credential for Azure's own clients, which keeps each token until shortly before it expires."""
        if self._credential is None:
            from azure.identity.aio import DefaultAzureCredential

            self._credential = DefaultAzureCredential(managed_identity_client_id=self._client_id)
        return self._credential

    async def token(self, scope: str) -> str:
        """An access token for `scope`. Raises IdentityUnavailable."""
        from azure.core.exceptions import AzureError

        try:
            return (await self.credential().get_token(scope)).token
        except AzureError as error:
            raise IdentityUnavailable(f"no token for {scope}: {type(error).__name__}") from None

    async def aclose(self) -> None:
        if self._credential is not None:
            await self._credential.close()
