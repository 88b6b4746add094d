"""Azure SignalR Service in serverless mode: its REST interface, by the router's identity.

Source: Microsoft Learn, "Azure SignalR Service data plane REST API reference".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import httpx

from routing.errors import RouterError

SCOPE = "https://signalr.azure.com/.default"
ROLE = "SignalR REST API Owner"
HUB, VERSION = "router", "2024-12-01"
SECONDS = 5.0  # for one call
CLIENT_MINUTES = 60


class Identity(Protocol):
    async def token(self, scope: str, *, fresh: bool = False) -> str: ...


class SignalR:
    """One hub of the service at `endpoint`."""

    def __init__(self, endpoint: str, identity: Identity) -> None:
        self._endpoint, self._identity = endpoint.strip().rstrip("/"), identity
        self._http: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def client(self, user: str) -> dict[str, str]:
        """Where a client connects, and by what. Raises RouterError and SecretUnavailable, as all of these do."""
        wanted = {"userId": user, "minutesToExpire": str(CLIENT_MINUTES)}
        token = (await self._post(":generateToken", wanted)).json()["token"]
        return {"url": f"{self._endpoint}/client/?hub={HUB}", "accessToken": token}

    async def send(self, target: str, argument: Mapping[str, Any]) -> None:
        """Tells every client, by calling its function `target`."""
        await self._post(":send", {}, {"target": target, "arguments": [argument]})

    async def check(self) -> None:
        """Whether the service is there and lets the router in."""
        await self.client("check")

    async def aclose(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def _post(self, call: str, wanted: Mapping[str, str], body: Any = None) -> httpx.Response:
        try:
            answer = await self._once(call, wanted, body, fresh=False)
            if answer.status_code == 401:
                answer = await self._once(call, wanted, body, fresh=True)
        except httpx.HTTPError as error:
            raise self._away(type(error).__name__) from None
        if answer.status_code in (401, 403):
            raise self._away(
                f'{answer.status_code}; give the identity the role "{ROLE}" on it (az role assignment create '
                f'--role "{ROLE}" --assignee IDENTITY --scope $(az signalr show --resource-group GROUP '
                f"--name {httpx.URL(self._endpoint).host.split('.')[0]} --query id --output tsv))"
            )
        if answer.status_code >= 300:
            raise self._away(str(answer.status_code))
        return answer

    async def _once(self, call: str, wanted: Mapping[str, str], body: Any, *, fresh: bool) -> httpx.Response:
        token, http = await self._identity.token(SCOPE, fresh=fresh), await self._opened()
        url, query = f"{self._endpoint}/api/hubs/{HUB}/{call}", {"api-version": VERSION, **wanted}
        return await http.post(url, params=query, json=body, headers={"authorization": f"Bearer {token}"})

    async def _opened(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._http is None:  # in a thread: it loads every authority there is
                self._http = await asyncio.to_thread(httpx.AsyncClient, timeout=SECONDS, trust_env=False)
        return self._http

    def _away(self, why: str) -> RouterError:
        text = f"SignalR at {self._endpoint}: {why}"
        return RouterError(text, status=503, code="notices_unavailable", retry_after=2.0)
