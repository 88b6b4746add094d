"""Several worker processes of the real app at once: what the tests of shared state start, watch and kill."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from local import azurite
from local.azurite import Azurite
from local.processes import LOOPBACK, die_with, spawn, stop
from local.providers import StandIn
from tests.routes_for import CHAT_PATH, HELLO, KEY, NO_TLS, PROVIDER_KEY, Table, routes_for

ROOT = Path(__file__).resolve().parent.parent
ADMIN_KEY = "admin-key-1"
CALLERS: Mapping[str, Table] = {
    "tester": {"key": "env:ROUTER_TEST_CALLER"},
    "kim": {"key": "env:ROUTER_TEST_ADMIN", "role": "admin"},
}
KEYS = {"ROUTER_TEST_CALLER": KEY, "ROUTER_TEST_ADMIN": ADMIN_KEY, "ROUTER_TEST_PROVIDER": PROVIDER_KEY}
POLL_SECONDS = 0.2
T = TypeVar("T")
PATIENCE = 60.0  # seconds for what takes two on an idle machine

# Starts the local host with a wall clock that is wrong by the first argument, in seconds.
SKEWED = """
import runpy, sys, time
skew, real = float(sys.argv.pop(1)), time.time
time.time = lambda: real() + skew
runpy.run_module("local.host", run_name="__main__", alter_sys=True)
"""


def fleet_routes(folder: Path, standins: Sequence[StandIn], **tables: Any) -> Path:
    """Writes a routes file whose route `chat` asks the stand-ins in their order, for a user and an admin."""
    path = folder / "routes.toml"
    path.write_text(routes_for(standins, callers=CALLERS, **tables))
    return path


@dataclass(frozen=True, slots=True)
class Member:
    """One worker process and a client for it."""

    name: str
    process: subprocess.Popen[str]
    client: httpx.AsyncClient

    async def ask(self, model: str = "chat", **fields: Any) -> httpx.Response:
        """One chat request; the provider sees the member's name as `user`."""
        body = {"model": model, "messages": HELLO, "user": self.name, **fields}
        return await self.client.post(CHAT_PATH, json=body)

    async def status(self) -> dict[str, Any]:
        """What the process says about each target."""
        answer = await self.client.get("/v1/router/status")
        assert answer.status_code == 200, answer.text
        return {target["target"]: target for target in answer.json()["targets"]}

    def kill(self) -> None:
        """Ends the process as a crash would, without a word."""
        self.process.kill()
        self.process.wait()


@asynccontextmanager
async def fleet(
    environments: Sequence[Mapping[str, str]],
    routes: Path,
    *,
    skews: Sequence[float] = (),
    warm: bool = True,
    host: str = "local.host",
) -> AsyncIterator[list[Member]]:
    """One worker process for each environment, all with the same routes file, served by the module `host`.

    Warm ones have built their app, which happens at the first request, by a look at /health.
    """
    async with AsyncExitStack() as stack:
        processes = []
        for place, environment in enumerate(environments):
            given = {"ROUTER_CONFIG": str(routes), **KEYS, **environment}
            processes.append(stack.enter_context(_process(given, skews[place] if skews else 0.0, host)))
        stack.callback(_end_all, processes)
        urls = await asyncio.gather(*(asyncio.to_thread(_url, process) for process in processes))
        members = []
        for number, (process, url) in enumerate(zip(processes, urls, strict=True)):
            client = httpx.AsyncClient(
                base_url=url,
                headers={"authorization": f"Bearer {KEY}"},
                timeout=20,
                trust_env=False,
                verify=NO_TLS,
                limits=httpx.Limits(keepalive_expiry=1),  # the host closes what was idle for 5 s, at any moment then
            )
            members.append(Member(f"member-{number}", process, await stack.enter_async_context(client)))
        for answer in await asyncio.gather(*(member.client.get("/health") for member in members if warm)):
            assert answer.status_code == 200, answer.text
        yield members


@contextmanager
def _process(environment: Mapping[str, str], skew: float, host: str) -> Iterator[subprocess.Popen[str]]:
    start = ["-c", SKEWED, str(skew)] if skew else ["-m", host]
    apart = "ROUTER_", "STANDIN_", "COV"  # coverage measured here, too, would cost a fleet half of its processor time
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(apart)}
    with subprocess.Popen(
        [sys.executable, *start, "--port", "0"],
        cwd=ROOT,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: die_with(signal.SIGKILL)) if sys.platform == "linux" else None,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()


def _end_all(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Asks all at once, so that nobody waits for the one before."""
    for process in processes:
        process.terminate()


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # it was asked for
    url = process.stdout.readline().strip()
    assert url, f"a worker process ended with {process.wait()} before it listened"
    return url


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request. `at` and `done_at` are epoch seconds; status 0 means that no answer came."""

    member: str
    at: float
    done_at: float
    status: int
    target: str | None


@dataclass
class Traffic:
    """Requests at a steady pace to every member, one after the other's start, whether or not answers come.

    `async with Traffic(members)` starts it; leaving it lets the running requests finish.
    """

    members: Sequence[Member]
    per_second: float = 8.0  # to each member
    model: str = "chat"
    answered: list[Answered] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pacers: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, set[asyncio.Task[None]]] = {member.name: set() for member in self.members}

    async def __aenter__(self) -> Traffic:
        for place, member in enumerate(self.members):
            late = place / len(self.members) / self.per_second
            self._pacers[member.name] = asyncio.create_task(self._pace(member, late))
        return self

    async def __aexit__(self, *error: object) -> None:
        running = {task for tasks in self._running.values() for task in tasks}
        for task in self._pacers.values():
            task.cancel()
        await asyncio.gather(*self._pacers.values(), return_exceptions=True)
        if running:
            _, late = await asyncio.wait(running, timeout=10)
            for task in late:
                task.cancel()

    async def drop(self, member: Member) -> None:
        """Sends that member nothing more, and forgets what it has not answered."""
        tasks = {self._pacers.pop(member.name), *self._running[member.name]}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Waits until everything that was sent before is answered."""
        if running := {task for tasks in self._running.values() for task in tasks}:
            await asyncio.wait(running, timeout=10)

    @property
    def lost(self) -> list[Answered]:
        """The requests that were not answered well."""
        return [answer for answer in self.answered if answer.status != 200]

    async def _pace(self, member: Member, late: float) -> None:
        await asyncio.sleep(late)
        while True:
            task = asyncio.create_task(self._one(member))
            self._running[member.name].add(task)
            task.add_done_callback(self._running[member.name].discard)
            await asyncio.sleep(1 / self.per_second)

    async def _one(self, member: Member) -> None:
        at, status, target = time.time(), 0, None
        try:
            answer = await member.ask(self.model)
            status, target = answer.status_code, answer.headers.get("x-router-target")
        except httpx.HTTPError:
            status = 0
        self.answered.append(Answered(member.name, at, time.time(), status, target))


async def ended_in_a_stream(member: Member, standin: StandIn, tokens: int) -> str:
    """Has the process told to end while a stream runs, which comes to its end. Returns its decision's id."""
    standin.behave(tokens=tokens, tokens_per_second=60)
    body = {"model": "chat", "messages": HELLO, "stream": True}
    async with member.client.stream("POST", CHAT_PATH, json=body) as stream:
        pieces = stream.aiter_bytes()
        await anext(pieces)
        member.process.send_signal(signal.SIGTERM)
        said = b"".join([piece async for piece in pieces])
    assert said.rstrip().endswith(b"[DONE]")
    assert await asyncio.to_thread(member.process.wait, PATIENCE) in (0, -signal.SIGTERM)
    return stream.headers["x-router-decision-id"]


async def until(true: Callable[[], Awaitable[T]], seconds: float, what: str) -> T:
    """The first result of `true()` that counts as true. AssertionError after `seconds`, naming the last one."""
    deadline = time.monotonic() + seconds
    while not (result := await true()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; last seen {result!r}"
        await asyncio.sleep(POLL_SECONDS)
    return result


async def statuses(members: Sequence[Member]) -> list[dict[str, Any]]:
    """What every process says now."""
    return await asyncio.gather(*(member.status() for member in members))


def all_say(members: Sequence[Member], target: str, **fields: Any) -> Callable[[], Coroutine[Any, Any, bool]]:
    """A condition for `until`: every process says this about the target."""

    async def true() -> bool:
        seen = await statuses(members)
        return all(each[target][name] == value for each in seen for name, value in fields.items())

    return true


def all_share(members: Sequence[Member]) -> Callable[[], Coroutine[Any, Any, bool]]:
    """A condition for `until`: every process has read the table, and nothing stands between them."""

    async def true() -> bool:
        seen = [target for each in await statuses(members) for target in each.values()]
        return all(target["sharing"] == "shared" and target["sharing_since"] for target in seen)

    return true


def epoch(monotonic: float) -> float:
    """A stand-in's time as epoch seconds."""
    return monotonic - time.monotonic() + time.time()


def asked_at(standin: StandIn) -> list[float]:
    """When the stand-in was asked, in epoch seconds; its last 200 requests."""
    return [epoch(record.at) for record in standin.requests]


class Tables:
    """Azurite on one port: it can be killed and started again there, with or without what it held."""

    def __init__(self, folder: Path | None = None) -> None:
        self.port = _quiet_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """What a worker process needs to find it."""
        return table_environment(self.port)

    async def start(self) -> None:
        """Starts it, and waits until it listens."""
        keep = ["--location", str(self._folder)] if self._folder else ["--inMemoryPersistence"]
        options = ["--disableTelemetry", "--silent", "--tableHost", LOOPBACK, "--tablePort", str(self.port)]
        self._process = spawn(["node", str(azurite.PROGRAM), *keep, *options])
        await asyncio.to_thread(Azurite(self._process, self.port).ready)

    async def stop(self) -> None:
        """Asks it to end, which writes down what it holds if it has a folder."""
        await asyncio.to_thread(stop, self._started())

    def kill(self) -> None:
        """Ends it without a word."""
        process = self._started()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None  # `start` comes first
        return self._process


@asynccontextmanager
async def tables(folder: Path | None = None) -> AsyncIterator[Tables]:
    """A started table service, which keeps its state in `folder` if one is given."""
    service = Tables(folder)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def _quiet_port() -> int:
    """A free port below those that the kernel hands out, so that nobody takes it while its service is away."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port := random.randrange(20_000, 32_000)))
            return port


class Proxy:
    """Stands between worker processes and the table service: notes each request's method, and can hold them back."""

    def __init__(self, service: Tables) -> None:
        self.service, self.port = service, 0
        self.methods: list[str] = []
        self.open = asyncio.Event()  # while it is not set, nothing passes
        self.open.set()
        self._news = asyncio.Event()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a worker process needs to find the service through this proxy."""
        there, here = f":{self.service.port}/", f":{self.port}/"
        return {name: value.replace(there, here) for name, value in self.service.environment.items()}

    async def quiet(self, seconds: float) -> bool:
        """Whether no request comes within `seconds`."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
                return False
        return True

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one connection."""
        onward_reader, onward = await asyncio.open_connection(LOOPBACK, self.service.port)
        try:
            await asyncio.gather(self._carry(reader, onward, self._note), self._carry(onward_reader, writer, len))
        finally:
            onward.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], object]
    ) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(65_536):
                note(piece)
                await self.open.wait()
                writer.write(piece)
                await writer.drain()
        writer.close()

    def _note(self, sent: bytes) -> None:
        """Requests for the breakers' table. The SDK writes a request's head in one piece, and waits for the answer."""
        if method := re.match(rb"(GET|POST|PUT|PATCH|MERGE|DELETE) \S*RouterState", sent):
            self.methods.append(method[1].decode())
            self._news.set()


@asynccontextmanager
async def proxied(service: Tables) -> AsyncIterator[Proxy]:
    """A proxy in front of `service`."""
    proxy = Proxy(service)
    async with _listening(proxy.connected) as proxy.port:
        yield proxy


class SilentTables:
    """Takes every request as a table service would, and answers none before it is released."""

    def __init__(self) -> None:
        self.port = 0
        self.asked = 0
        self.waiting = 0
        self.released = asyncio.Event()

    @property
    def environment(self) -> Mapping[str, str]:
        """What a worker process needs to find it."""
        return table_environment(self.port)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads one request, and holds it."""
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        self.waiting += 1
        try:
            await self.released.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n")
            writer.write(b'{"value":[]}')
        finally:
            self.waiting -= 1
            writer.close()


@asynccontextmanager
async def silent_tables() -> AsyncIterator[SilentTables]:
    """A table service that is there, and answers nobody until it is released."""
    service = SilentTables()
    async with _listening(service.connected) as service.port:
        try:
            yield service
        finally:
            service.released.set()


def table_environment(port: int) -> Mapping[str, str]:
    """What a worker process needs to look for the table service on `port`."""
    endpoint = f"http://{LOOPBACK}:{port}/{azurite.ACCOUNT}"
    account = f"AccountName={azurite.ACCOUNT};AccountKey={azurite.ACCOUNT_KEY}"
    return {"ROUTER_TABLES": f"DefaultEndpointsProtocol=http;{account};TableEndpoint={endpoint};"}


@asynccontextmanager
async def _listening(
    connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[int]:
    """Has `connected` carry each connection to a free port, which this yields."""
    running: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(connected(reader, writer))
        running.add(task)
        task.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)  # one turn of the loop, in which closed connections end
