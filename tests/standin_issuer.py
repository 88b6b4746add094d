"""An issuer of access tokens, as OpenID Connect Discovery describes it, with keys that can be rolled over."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

NAME = "login.example.org"
AUDIENCE = "api://router"
TENANT = "0000000a-000b-000c-000d-00000000000e"


class Issuer:
    """Signs tokens, and publishes what it signs them with. `away` makes it answer 503."""

    def __init__(self) -> None:
        self.keys: dict[str, RSAPrivateKey] = {}
        self.signs_with = ""
        self.away = False
        self.fetches = 0
        self.url = ""
        self.about: dict[str, Any] = {}
        self.more_keys: list[Any] = []  # published beside our own

    def roll_over(self, kid: str, *, keep: bool = True) -> None:
        """Signs with a new key from now on; the old ones stay published when `keep`."""
        self.keys = {**(self.keys if keep else {}), kid: generate_private_key(65_537, 2_048)}
        self.signs_with = kid

    def token(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token with these claims in place of the usual ones; None leaves one out."""
        return jwt.encode(
            self.claims(**claims),
            self.keys[self.signs_with],
            algorithm="RS256",
            headers={"kid": self.signs_with, **(header or {})},
        )

    def claims(self, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 3_600, "roles": ["Router.Use"]}
        return {name: value for name, value in {**usual, **claims}.items() if value is not None}

    def public(self) -> bytes:
        """The key in use as anybody can write it down from what is published."""
        return self.keys[self.signs_with].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    async def discovery(self, _: web.Request) -> web.Response:
        return self._answer({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.about})

    async def published(self, _: web.Request) -> web.Response:
        self.fetches += 1
        own = [
            {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}
            for kid, key in self.keys.items()
        ]
        return self._answer({"keys": [*self.more_keys, *own]})

    def _answer(self, body: dict[str, Any]) -> web.Response:
        return web.json_response(body, status=503 if self.away else 200)


@asynccontextmanager
async def serving(tls: ssl.SSLContext) -> AsyncIterator[Issuer]:
    """Over TLS, in the running loop."""
    issuer = Issuer()
    issuer.roll_over("first")
    app = web.Application()
    app.router.add_get(f"/{TENANT}/v2.0/.well-known/openid-configuration", issuer.discovery)
    app.router.add_get(f"/{TENANT}/v2.0/keys", issuer.published)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        issuer.url = f"https://{NAME}:{runner.addresses[0][1]}/{TENANT}/v2.0"
        yield issuer
    finally:
        await runner.cleanup()
