"""One pool of connections to one service, and the one place where an HTTP failure becomes a class of `errors`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx

from routing.errors import BadReply, ProviderError, TooSlow, Unavailable
from routing.providers.base import PASSED_HEADERS
from routing.trace import outgoing

if TYPE_CHECKING:
    import aiohttp
    from httpx_aiohttp import AiohttpTransport

CONNECT_SECONDS = 5.0
KEEPALIVE_SECONDS = 30.0  # shorter than any provider's own, so that we rarely write into a closing connection
MAX_CONNECTIONS = 1_000
DRAIN_SECONDS = 1.0  # for the end of a body after its last word
LARGEST_REPLY = 64 * 1024 * 1024  # bytes


class Http:
    """POSTs bytes to one service.

    httpx's requests and responses over aiohttp's connections: a quarter of the CPU of httpx's own transport. It is
    asked directly, because an AsyncClient in front of it (cookies, redirects, authentication) is another tenth.
    """

    def __init__(self) -> None:
        self._transport: AiohttpTransport | None = None

    async def post(self, url: httpx.URL, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        """The response with its head read and its body still to come. Raises Unavailable, or TooSlow to connect."""
        return await self._send("POST", url, headers, body)

    async def get(self, url: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        """The same for what is only looked at."""
        return await self._send("GET", url, headers, b"")

    async def _send(self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        told = [*_HEADERS, *headers.items(), *outgoing.get().items()]
        request = httpx.Request(method, url, headers=told, content=body, extensions=_EXTENSIONS)
        with _failing_as(Unavailable, "could not be reached"):
            return await self._pool().handle_async_request(request)

    async def read(self, response: httpx.Response) -> bytes:
        """The whole body. Raises BadReply when it is cut or too large."""
        parts, size = [], 0
        try:
            async for piece in self.pieces(response):
                parts.append(piece)
                size += len(piece)
                if size > LARGEST_REPLY:
                    raise BadReply("The provider's reply is too large.")
        finally:
            await response.aclose()
        return b"".join(parts)

    async def pieces(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises BadReply when it is cut."""
        with _failing_as(BadReply, "broke off its reply"):
            async for piece in response.aiter_raw():
                yield piece

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    def _pool(self) -> AiohttpTransport:
        if self._transport is None:
            from httpx_aiohttp import AiohttpTransport  # aiohttp takes 0.1 s to import: not before the first call

            self._transport = AiohttpTransport(client=_session, verify=_NO_CONTEXT)
        return self._transport


_HEADERS = (("content-type", "application/json"), ("accept-encoding", "identity"), ("user-agent", "llm-router"))
_EXTENSIONS = {"timeout": {"connect": CONNECT_SECONDS}}
# The session verifies by aiohttp's own context. The transport would make another one, which nobody uses, and stand
# still for 40 ms at a provider's first request; this one trusts nobody and costs nothing.
_NO_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _session() -> aiohttp.ClientSession:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_SECONDS)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


@contextmanager
def _failing_as(error: type[Unavailable | BadReply], what: str) -> Iterator[None]:
    """Every failure of the layers below leaves as one of ours; a cancelled caller stays one."""
    try:
        yield
    except (TimeoutError, httpx.ConnectTimeout) as failure:
        if failure.__cause__ is not None and _lost(failure.__cause__):
            raise error(f"The provider {what}.") from failure  # the transport files a lost connection under timeouts
        raise TooSlow("The provider did not answer in time.") from failure
    except _failures() as failure:
        raise error(f"The provider {what}.") from failure


def _lost(failure: BaseException) -> bool:
    import aiohttp

    return isinstance(failure, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)


def _failures() -> tuple[type[Exception], ...]:
    """What the layers below raise, also what the transport does not translate."""
    import aiohttp

    return (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, OSError, ValueError)


async def drain(pieces: AsyncIterator[bytes]) -> None:
    """Reads on to the end of a body after its last word, for a moment: then the connection can be used again."""
    with suppress(TimeoutError, ProviderError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in pieces:
                pass


def retry_after(headers: httpx.Headers) -> float | None:
    """Seconds the provider asks us to wait: `retry-after-ms`, or `retry-after` as seconds or an HTTP date."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / scale
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    return _seconds_until(headers.get("retry-after"), headers.get("date"))


def _seconds_until(date: str | None, now: str | None) -> float | None:
    """Both dates are the provider's, so its clock need not agree with ours; without its own, ours has to do."""
    if date is None:
        return None
    try:
        there = parsedate_to_datetime(now) if now else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(date) - there).total_seconds())
    except (TypeError, ValueError):
        return None


def passed_headers(headers: httpx.Headers) -> dict[str, str]:
    """What of the provider's headers the caller gets to see."""
    passed = {name: headers[name] for name in PASSED_HEADERS if name in headers}
    for name in ("x-request-id", "apim-request-id", "request-id"):
        if name in headers:
            return passed | {"x-upstream-request-id": headers[name]}
    return passed
