"""A router behind each of its hosts with stand-in providers behind it, as the tests of what a user sees set it up."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai

from local.providers import Kind, StandIn, serve
from local.standin_behaviour import Behaviour
from local.standin_server import listening
from local.standin_wire import Dialect

if TYPE_CHECKING:
    from tests.conftest import LoopThread, ServeApp

KEY = "caller-key-1"  # of the one caller in every routes file written here
PROVIDER_KEY = "provider-key-1"
HELLO: list[Any] = [{"role": "user", "content": "Hello there"}]
CHAT: dict[str, Any] = {"model": "chat", "messages": HELLO}
CHAT_PATH = "/v1/chat/completions"
ONCE = {"retries": 0}  # a route's `retry`: nobody is asked twice
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # for clients that would load every authority anew, 40 ms each
Table = Mapping[str, Any]


def routes_for(
    standins: Sequence[StandIn],
    *,
    server: Table | None = None,
    breaker: Table | None = None,
    health: Table | None = None,
    route: Table | None = None,
    providers: Mapping[str, Table] | None = None,
    targets: Mapping[str, Table] | None = None,
    callers: Mapping[str, Table] | None = None,
) -> str:
    """A routes file whose route `chat` asks the stand-ins in their order; the tables given add to what is there."""
    names = [standin.name for standin in standins]
    file: dict[str, Any] = {
        "server": server or {},
        "breaker": breaker or {},
        "health": health or {},
        "providers": {s.name: {**_provider(s), **(providers or {}).get(s.name, {})} for s in standins},
        "targets": {
            name: {"provider": name, "model": f"model-of-{name}", **(targets or {}).get(name, {})} for name in names
        },
        "routes": {"chat": {"targets": names, **(route or {})}},
        "aliases": {"gpt-alias": "chat"},
        "callers": {"tester": {"key": "env:ROUTER_TEST_CALLER"}} if callers is None else callers,
    }
    return "\n".join(f"{name} = {_toml(table)}" for name, table in file.items()) + "\n"


def _provider(standin: StandIn) -> dict[str, Any]:
    address = "base_url" if standin.kind in ("openai", "anthropic") else "endpoint"
    key = {} if standin.kind == "ollama" else {"key": "env:ROUTER_TEST_PROVIDER"}
    return {"type": standin.kind, address: standin.url, **key}


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(entry)}" for name, entry in value.items()) + "}"
    return json.dumps(value)


class Stage:
    """Stand-ins, the router that asks them, and the ways in which a client asks the router."""

    def __init__(self, serve_app: ServeApp, loop: LoopThread, folder: Path) -> None:
        self._serve_app, self._loop, self._folder = serve_app, loop, folder
        self._stack = AsyncExitStack()
        self.url = ""

    def standin(self, kind: Kind = "openai", name: str | None = None, **behaviour: Any) -> StandIn:
        """A stand-in of that kind; `behaviour` are fields of its Behaviour."""
        served = serve(kind, name=name, behaviour=Behaviour(**behaviour))
        return self._loop.run(self._stack.enter_async_context(served))

    def speaking(self, dialect: Dialect, name: str) -> StandIn:
        """A stand-in that speaks a dialect of the test's own."""
        served = listening(StandIn(dialect, name, Behaviour()))
        return self._loop.run(self._stack.enter_async_context(served))

    def serve(self, *standins: StandIn, **tables: Any) -> None:
        """Serves a router in front of the stand-ins; `tables` as `routes_for` takes them."""
        self.serve_text(routes_for(standins, **tables))

    def serve_text(self, text: str) -> None:
        """Serves a router with that routes file."""
        path = self._folder / "routes.toml"
        path.write_text(text)
        keys = {"ROUTER_TEST_CALLER": KEY, "ROUTER_TEST_PROVIDER": PROVIDER_KEY}
        self.url = self._serve_app({"ROUTER_CONFIG": str(path), **keys})

    def sdk(self, **options: Any) -> openai.OpenAI:
        """The official client, as a user makes it; without retries unless asked."""
        return openai.OpenAI(**self._sdk_options(options), http_client=openai.DefaultHttpxClient(verify=NO_TLS))

    def async_sdk(self, **options: Any) -> openai.AsyncOpenAI:
        http_client = openai.DefaultAsyncHttpxClient(verify=NO_TLS)
        return openai.AsyncOpenAI(**self._sdk_options(options), http_client=http_client)

    def _sdk_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"base_url": f"{self.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 10, **options}

    def http(self, **options: Any) -> httpx.Client:
        """A plain client with the caller's key."""
        given = {"base_url": self.url, "headers": {"authorization": f"Bearer {KEY}"}, "timeout": 10, **options}
        return httpx.Client(trust_env=False, verify=NO_TLS, **given)

    def ask(self, **fields: Any) -> httpx.Response:
        """One chat request by plain HTTP; a stream is read to its end."""
        with self.http() as client:
            return client.post(CHAT_PATH, json={**CHAT, **fields})

    def until(self, standin: StandIn, true: Callable[[StandIn], bool], seconds: float = 20.0) -> None:
        """Waits until `true(standin)`. Raises TimeoutError."""
        self._loop.run(standin.until(true, seconds))

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """A bare connection to the router."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            yield connection

    def close(self) -> None:
        self._loop.run(self._stack.aclose())


def raw_request(body: bytes, *headers: str, method: str = "POST", path: str = CHAT_PATH) -> bytes:
    """A request as bytes, with the caller's key and the body's length."""
    lines = [f"{method} {path} HTTP/1.1", "host: router", f"authorization: Bearer {KEY}", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def chat_body(**fields: Any) -> bytes:
    return json.dumps({**CHAT, **fields}).encode()


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    """What came, up to and including the read that brought `wanted`. Raises TimeoutError, and EOFError at the end."""
    received = b""
    while wanted not in received:
        piece = connection.recv(65536)
        if not piece:
            raise EOFError(received.decode("latin-1"))
        received += piece
    return received


def reset(connection: socket.socket) -> None:
    """Leaves without a farewell: a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def events(text: str) -> list[Any]:
    """The data of each event of a stream, parsed, `[DONE]` as it is; comments left out."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [entry if entry == "[DONE]" else json.loads(entry) for entry in data]


def text_of(chunks: Sequence[Any]) -> str:
    """The text that the chunks of a stream deliver."""
    choices = [choice for chunk in chunks if isinstance(chunk, dict) for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def heard(standin: StandIn) -> str:
    """What that stand-in says to HELLO."""
    return f"{standin.name} (model-of-{standin.name}) heard: Hello there"


def now() -> float:
    """The clock of a stand-in's records."""
    return time.monotonic()
