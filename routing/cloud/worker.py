"""Corrections to the Azure Functions Python worker that this process runs in, each only where it is needed."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType, ModuleType
from typing import Any

# The library of Python 3.13 and later, and the worker of 3.11 and 3.12; both load before the function app.
_HTTP_MODULES = ("azure_functions_runtime.http_v2", "azure_functions_worker.http_v2")
_POP = "_pop_http_response"
LAST_SECONDS = 10.0  # for what is done after the last answer; then the process ends, done or not
_log = logging.getLogger(__name__)


def install() -> None:
    """Apply every correction to the worker that is loaded; calling it again changes nothing."""
    quiet_access_log()
    for name in _HTTP_MODULES:
        if name in sys.modules:
            forget_answered_requests(sys.modules[name])


def before_the_end(soon: Callable[[], None], last: Callable[[], Awaitable[None]]) -> None:
    """Has `soon` called in the running loop when SIGTERM comes, and `last` awaited after the server's last answer.

    The worker's server drains and then lets the signal end the process at once: no task is cancelled, and nothing that
    was to be done at exit is done. So what is to be said last has to be said while the server shuts down.

    Where nobody handles the signal nothing is changed: the process ends at once, as it would without us. The same
    where we do not run in the main thread, in which Python takes signals.
    """
    loop, handler = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(soon)
        handler(number, frame)

    signal.signal(signal.SIGTERM, handle)
    after_shutdown(getattr(handler, "__self__", None), last)


def after_shutdown(server: Any, last: Callable[[], Awaitable[None]]) -> None:
    """Has `last` awaited when a uvicorn server has shut down; nothing is done where `server` looks different."""
    shutdown = getattr(server, "shutdown", None)
    if inspect.iscoroutinefunction(shutdown) and not hasattr(shutdown, "__wrapped__"):
        server.shutdown = _then(shutdown, last)


def _then(shutdown: Callable[..., Awaitable[None]], last: Callable[[], Awaitable[None]]) -> Callable[..., Any]:
    @functools.wraps(shutdown)
    async def shut_down_and_finish(*args: Any, **options: Any) -> None:
        await shutdown(*args, **options)
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await last()
        except Exception as error:
            _log.warning("The end was not orderly: %s", type(error).__name__)

    return shut_down_and_finish


def quiet_access_log() -> None:
    """Keep uvicorn from writing each request's path and query, which may carry what a client should not have sent.

    The filter stays when the worker's server configures its loggers after us; the level saves making the record.
    """
    logger = logging.getLogger("uvicorn.access")
    logger.addFilter(_from_warning)
    logger.setLevel(logging.WARNING)


def forget_answered_requests(module: ModuleType) -> None:
    """Drop a request's entry in the worker's HttpCoordinator once its answer is taken out.

    The worker keeps one entry of about 2 KB per request for ever. Nothing is done where the coordinator does not
    look as expected, or where it has forgotten the entry itself.
    """
    coordinator = getattr(module, "HttpCoordinator", None)
    pop = getattr(coordinator, _POP, None)
    if coordinator is not None and pop is not None and not hasattr(pop, "__wrapped__"):
        setattr(coordinator, _POP, _forgetting(pop))


def _forgetting(pop: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    @functools.wraps(pop)
    def pop_and_forget(coordinator: Any, invocation_id: str) -> Any:
        try:
            return pop(coordinator, invocation_id)
        finally:
            getattr(coordinator, "_context_references", {}).pop(invocation_id, None)

    return pop_and_forget


def _from_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING
