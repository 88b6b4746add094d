"""Services on loopback under the names they have in the world: an authority of our own, and names that lead here."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp.connector
import pytest
import trustme


class World:
    """Certificates for any name, and where names lead. Only what is inside `pretended` believes in it."""

    def __init__(self) -> None:
        self._authority = trustme.CA()

    def server(self, *names: str) -> ssl.SSLContext:
        """For a server that has these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context

    @contextmanager
    def pretended(self, *names: str) -> Iterator[None]:
        """Here `names` lead to this machine, and httpx and Azure's clients trust our authority."""
        with pytest.MonkeyPatch.context() as patch, self._authority.cert_pem.tempfile() as pem:
            patch.setenv("SSL_CERT_FILE", pem)  # httpx reads it for each client
            patch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", self.client())  # made when aiohttp is imported
            patch.setattr(socket, "getaddrinfo", _leading_here(names))
            yield


def _leading_here(names: tuple[str, ...]) -> Any:
    real = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if name in names else host, *rest, **more)

    return look_up
