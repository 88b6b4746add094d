"""A Key Vault, and the endpoint that gives a function app the tokens of its managed identity."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

NAME = "router.vault.azure.net"
HEADER = "identity-header-value"
CLIENT_ID = "00000000-0000-0000-0000-00000000c11e"


@dataclass(slots=True)
class Version:
    id: str
    value: str
    enabled: bool = True


@dataclass(slots=True)
class Fault:
    """One answer that goes wrong."""

    status: int
    code: str = "Fault"
    inner: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Vault:
    """Its secrets, the tokens it takes, and what goes wrong with it. `open_` clear makes it as slow as can be."""

    def __init__(self) -> None:
        self.secrets: dict[str, list[Version]] = {}
        self.given: list[str] = []  # tokens
        self.good: set[str] = set()  # those of them that are not revoked
        self.faults: deque[Fault] = deque()
        self.fault: Fault | None = None  # of every request
        self.identity_faults: deque[int] = deque()
        self.wrong_tenant = False
        self.resource = ""  # that its challenge names
        self.open_ = asyncio.Event()
        self.open_.set()
        self.token_seconds = 3_600
        self.reads: list[str] = []  # paths of secrets read with a good token
        self.asked: list[dict[str, str]] = []  # query of each token request
        self.url = self.identity_url = ""

    def put(self, name: str, value: str) -> str:
        """A new version; its id."""
        version = Version(secrets.token_hex(16), value)
        self.secrets.setdefault(name, []).append(version)
        return version.id

    def environment(self) -> dict[str, str]:
        """What the platform and the operator set for an app with that identity and vault."""
        return {
            "IDENTITY_ENDPOINT": self.identity_url,
            "IDENTITY_HEADER": HEADER,
            "AZURE_CLIENT_ID": CLIENT_ID,
            "ROUTER_KEY_VAULT": self.url,
        }

    async def until(self, true: Callable[[], bool]) -> None:
        """Lets other tasks run until `true()`. Raises TimeoutError after seconds."""
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110 - nothing of the client's tells us
                await asyncio.sleep(0.001)

    async def give_token(self, request: web.Request) -> web.Response:
        if request.headers.get("x-identity-header") != HEADER:
            return web.json_response({"error": "no header"}, status=401)
        self.asked.append(dict(request.query))
        await asyncio.sleep(0)
        if self.identity_faults:
            return web.json_response({"error": "fault"}, status=self.identity_faults.popleft())
        token = f"token-{secrets.token_urlsafe(24)}"
        self.given.append(token)
        self.good.add(token)
        expires = int(time.time()) + self.token_seconds
        told = {"access_token": token, "expires_on": str(expires), "resource": request.query["resource"]}
        return web.json_response({**told, "token_type": "Bearer"})

    async def read(self, request: web.Request) -> web.Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.good or self.wrong_tenant:
            return self._challenge()
        self.reads.append(request.path)
        await self.open_.wait()
        fault = self.faults.popleft() if self.faults else self.fault
        if fault is not None:
            return _refusal(fault.status, fault.code, fault.inner, fault.headers)
        return self._secret(request.match_info["name"], request.match_info.get("version"))

    def _secret(self, name: str, version: str | None) -> web.Response:
        found = [one for one in self.secrets.get(name, ()) if not version or one.id == version]
        if not found:
            return _refusal(404, "SecretNotFound")
        if not found[-1].enabled:
            return _refusal(403, "Forbidden", "SecretDisabled")
        where = f"{self.url}/secrets/{name}/{found[-1].id}"
        return web.json_response({"value": found[-1].value, "id": where, "attributes": {"enabled": True}})

    def _challenge(self) -> web.Response:
        tenant = (
            "11111111-1111-1111-1111-111111111111" if self.wrong_tenant else "0" * 8 + "-0000-0000-0000-" + "0" * 12
        )
        authority = f"https://login.microsoftonline.com/{tenant}"
        challenge = f'Bearer authorization="{authority}", resource="{self.resource}"'
        return _refusal(401, "Unauthorized", None, {"www-authenticate": challenge})


def _refusal(status: int, code: str, inner: str | None = None, headers: dict[str, str] | None = None) -> web.Response:
    error = {"code": code, "message": f"{code}, said the vault", **({"innererror": {"code": inner}} if inner else {})}
    return web.json_response({"error": error}, status=status, headers=headers)


@asynccontextmanager
async def serving(tls: ssl.SSLContext) -> AsyncIterator[Vault]:
    """The vault over TLS, the identity's endpoint over plain HTTP as in App Service, both in the running loop."""
    vault = Vault()
    app, identity = web.Application(), web.Application()
    app.router.add_get("/secrets/{name}", vault.read)
    app.router.add_get("/secrets/{name}/", vault.read)
    app.router.add_get("/secrets/{name}/{version}", vault.read)
    identity.router.add_get("/msi/token", vault.give_token)
    runners = [web.AppRunner(app, shutdown_timeout=0.1), web.AppRunner(identity, shutdown_timeout=0.1)]
    try:
        ports = [await _listening(runners[0], tls), await _listening(runners[1], None)]
        vault.url = f"https://{NAME}:{ports[0]}"
        vault.resource = f"https://vault.azure.net:{ports[0]}"  # Azure's client compares it with the address
        vault.identity_url = f"http://127.0.0.1:{ports[1]}/msi/token"
        yield vault
    finally:
        for runner in runners:
            await runner.cleanup()


async def _listening(runner: web.AppRunner, tls: ssl.SSLContext | None) -> int:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    port: int = runner.addresses[0][1]
    return port
