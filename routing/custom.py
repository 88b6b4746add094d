"""Strategies that the owner of a router writes: imported and checked with the routes file, and never trusted with time.

A custom strategy is a plain function `(Target, Facts) -> Score`, named in the routes file as `package.module:function`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from routing.config import Config, Route
from routing.strategies import Score, Strategy, ranked
from routing.types import Facts, Plan, Target

T = TypeVar("T")
LONGEST_SECONDS = 0.05  # for the scores of all targets of one request
REST_SECONDS = 60.0  # that a slow one is left alone: its thread may still be running
_log = logging.getLogger(__name__)


def load(config: Config) -> tuple[dict[str, Strategy], list[str]]:
    """Every custom strategy by its name, and why others cannot be used, each with its path in the routes file."""
    found: dict[str, Strategy] = {}
    errors: list[str] = []
    for path, name in _named(config):
        try:
            found[name] = _imported(name)
        except ValueError as error:
            errors.append(f"{path}: {error}")
    return found, errors


@dataclass(slots=True)
class Custom:
    """Runs custom strategies off the event loop, each under a time limit."""

    strategies: Mapping[str, Strategy] = field(default_factory=dict)
    _resting_until: dict[str, float] = field(default_factory=dict)

    async def plan(self, name: str, route: Route, facts: Facts) -> Plan | str:
        """The ranking by that strategy, or why there is none. Never raises what the strategy raises."""
        now = asyncio.get_running_loop().time()
        if now < self._resting_until.get(name, 0.0):
            return f"{name} rests after being slow"
        score, frozen = _checked(self.strategies[name]), _frozen(facts)
        ranking = _in_thread(lambda: ranked(route.name, name, score, route.targets, frozen))
        done, _ = await asyncio.wait({ranking}, timeout=LONGEST_SECONDS)
        if not done:
            self._resting_until[name] = now + REST_SECONDS
            why = f"{name} took more than {LONGEST_SECONDS * 1000:.0f} ms"
        elif error := ranking.exception():
            why = f"{name} raised {type(error).__name__}"
        else:
            return ranking.result()
        _log.warning("A strategy was replaced by the route's order: %s", why)
        return why


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """The result of `work`, done in a thread of its own: one that never ends holds up no pool, and no exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # there is one when there is no error
        else:
            future.set_exception(error)
            future.exception()  # seen: nobody may be waiting any more

    def run() -> None:
        try:
            told: tuple[T | None, BaseException | None] = work(), None
        except BaseException as error:  # also SystemExit: the strategy is somebody else's code
            told = None, _tame(error)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, *told)

    threading.Thread(target=run, name="strategy", daemon=True).start()
    return future


def _tame(error: BaseException) -> Exception:
    """What a future may carry."""
    return error if isinstance(error, Exception) and not isinstance(error, StopIteration) else RuntimeError(repr(error))


def _frozen(facts: Facts) -> Facts:
    """The same facts, with mappings that nobody can change."""
    return replace(
        facts,
        speed=MappingProxyType(facts.speed),
        shares=MappingProxyType(facts.shares),
        breaker=MappingProxyType(facts.breaker),
        cost=MappingProxyType(facts.cost),
    )


def _named(config: Config) -> Iterator[tuple[str, str]]:
    for route, settings in config.file.routes.items():
        overrides = {"groups": settings.groups, "callers": settings.callers}
        named = [(f"routes.{route}.strategy", settings.strategy)]
        for kind, tables in overrides.items():
            named += [(f"routes.{route}.{kind}.{whom}.strategy", each.strategy or "") for whom, each in tables.items()]
        yield from ((path, name) for path, name in named if ":" in name)


def _imported(name: str) -> Strategy:
    """The function. Raises ValueError saying what is wrong with it."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise ValueError(f"{name} cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(function):
        raise ValueError(f"{name} is not a function")
    if _is_async(function):
        raise ValueError(f"{name} must be a plain function, not async")
    try:
        inspect.signature(function).bind(None, None)
    except (TypeError, ValueError):  # of what is written in C nothing may be known
        raise ValueError(f"{name} must take two arguments, the target and the facts") from None
    strategy: Strategy = function
    return strategy


def _is_async(function: Callable[..., object]) -> bool:
    """Whether a call gives something to wait for or to go through; an object is asked by its `__call__`."""
    called = (function, getattr(function, "__call__", None))  # noqa: B004 - which function is meant, not whether
    kinds = inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction
    return any(kind(each) for kind in kinds for each in called)


def _checked(strategy: Strategy) -> Strategy:
    def score(target: Target, facts: Facts) -> Score:
        scored: object = strategy(target, facts)
        if isinstance(scored, Score) and math.isfinite(scored.value) and isinstance(scored.reason, str):
            return Score(float(scored.value), scored.reason)
        raise TypeError("a strategy returns a Score of a finite number and a text")

    return score
