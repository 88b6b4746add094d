"""What tests share: a hand-cranked clock, Azurite, and the function app behind each of its two hosts."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from local import azurite as azurite_service
from local.host import build, serving
from tests.routes_for import Stage
from tests.worker_host import WorkerHost

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")
ServeApp = Callable[[Mapping[str, str]], str]


class Clock:
    """A clock that moves only when told: call it for the time in seconds, `advance` it to let time pass."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def unavailable(reason: str) -> None:
    """Skip the test, saying what is missing; in CI nothing may be missing, so fail there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """The connection string of a table service in memory, one per test process."""
    if reason := azurite_service.unavailable():
        unavailable(reason)
    with azurite_service.azurite() as service:
        service.ready()
        yield service.connection_string


def need_worker_library() -> None:
    """Skip the test where the worker library cannot be had."""
    if sys.version_info < (3, 13):
        pytest.skip("the worker library, azure-functions-runtime, exists for Python 3.13 and later")
    if importlib.util.find_spec("azure_functions_runtime") is None:
        unavailable("azure-functions-runtime is not installed (run make setup)")


@pytest.fixture(params=["local.host", "tests.worker_host"])
def host(request: pytest.FixtureRequest) -> str:
    """What serves the app in a process that signals end: the local host, or the worker library as in the cloud."""
    if request.param == "tests.worker_host":
        need_worker_library()
    return str(request.param)


class LoopThread:
    """An event loop in a thread of its own, so that tests may block, as the synchronous SDKs do."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hosts", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def hosts_loop() -> Iterator[LoopThread]:
    """The loop that both hosts, and the router in them, run in."""
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def local_host(hosts_loop: LoopThread) -> Iterator[str]:
    """The function app behind local/host.py."""
    stack = AsyncExitStack()
    yield hosts_loop.run(stack.enter_async_context(serving(build(ROOT), drain_seconds=1)))
    hosts_loop.run(stack.aclose())


@pytest.fixture(scope="session")
def worker_library(hosts_loop: LoopThread) -> Iterator[str]:
    """The function app behind the worker library that runs it in the cloud."""
    need_worker_library()
    host, stack = WorkerHost(ROOT), AsyncExitStack()
    hosts_loop.run(host.start())
    yield hosts_loop.run(stack.enter_async_context(serving(host, drain_seconds=1)))
    hosts_loop.run(stack.aclose())


@pytest.fixture(params=["local_host", "worker_library"])
def serve_app(
    request: pytest.FixtureRequest, hosts_loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServeApp]:
    """Serve a newly built router: `serve_app(environment) -> base URL`. The test runs once behind each host.

    The router sees `environment` and no other ROUTER_ or STANDIN_ variable, and is taken down after the test. A second
    call in one test replaces the router of the first.
    """
    url: str = request.getfixturevalue(request.param)
    wiring = importlib.import_module("routing.wiring")

    def serve(environment: Mapping[str, str]) -> str:
        for name in [name for name in os.environ if name.startswith(("ROUTER_", "STANDIN_"))]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        hosts_loop.run(wiring.forget())
        return url

    yield serve
    hosts_loop.run(wiring.forget())


@pytest.fixture
def stage(serve_app: ServeApp, hosts_loop: LoopThread, tmp_path: Path) -> Iterator[Stage]:
    """Stand-in providers and a router in front of them. The test runs once behind each host."""
    built = Stage(serve_app, hosts_loop, tmp_path)
    yield built
    built.close()
