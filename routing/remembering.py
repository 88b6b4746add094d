"""Equal requests are answered once: from the cache, or together with one that is under way. In front of the router."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from routing import savings, trace
from routing.broadcast import Broadcast, Pieces, Recorded, Replay
from routing.cache import LARGEST, Cache, Kept, Terms, cacheable, key_of
from routing.config import Config, Route
from routing.decisions import Decisions, new_id
from routing.errors import LimitExceeded
from routing.providers.base import Reply
from routing.router import Answer, Asked, OpenAnswer, Router
from routing.shared_answers import SharedAnswers
from routing.trace import Notes
from routing.types import Decision

T = TypeVar("T")
Place = tuple[str, str]  # a route and what equal requests to it have in common
HEADER = "x-router-cache"
_About = tuple[Decision, dict[str, str], str | None, tuple[str, ...], float, int | None]  # the fields of About


@dataclass(slots=True)
class _UnderWay(Generic[T]):
    """Work that several wait for."""

    task: asyncio.Task[T]
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Opened:
    answer: OpenAnswer
    broadcast: Broadcast


class Remembering:
    """The router, for routes with `cache` or `coalesce`; the others pass through."""

    def __init__(
        self,
        router: Router,
        config: Config,
        decisions: Decisions,
        cache: Cache | None = None,
        clock: Callable[[], float] = time.time,
        shared: SharedAnswers | None = None,
    ) -> None:
        self._shared = shared or SharedAnswers(None)
        self._router, self._config, self._decisions, self._clock = router, config, decisions, clock
        self._cache = cache or Cache(time.monotonic)
        self._whole: dict[Place, _UnderWay[Answer]] = {}
        self._streams: dict[Place, _UnderWay[_Opened]] = {}

    async def chat(self, asked: Asked) -> Answer:
        """The answer in one piece. Raises a RouterError."""
        route = self._config.route(asked.request.model, asked.caller)
        if (place := _place(asked, route)) is None:
            return _marked(await self._router.chat(asked), route, "miss")
        if kept := await self._found(place, route):
            about = self._again(asked, kept)
            return Answer(*about, b"".join(kept.pieces))
        if not route.settings.coalesce:
            return _marked(await self._asked(asked, place, route), route, "miss")
        answer, first = await _together(self._whole, place, lambda: self._asked(asked, place, route))
        if first:
            return _marked(answer, route, "miss")
        return Answer(*self._again(asked, _kept(answer, (answer.body,))), answer.body)

    async def open(self, asked: Asked) -> OpenAnswer:
        """The answer as a stream that has said its first words. Raises a RouterError."""
        route = self._config.route(asked.request.model, asked.caller)
        if (place := _place(asked, route)) is None:
            return _marked(await self._router.open(asked), route, "miss")
        if kept := await self._found(place, route):
            return OpenAnswer(*self._again(asked, kept), Replay(kept.pieces))
        if not route.settings.coalesce:
            answer = await self._router.open(asked)
            return _marked(replace(answer, relay=self._recorded(answer, place, route)), route, "miss")
        opened, first = await _together(self._streams, place, lambda: self._opened(asked, place, route), _leave)
        listener = opened.broadcast.listen()
        if first:
            return _marked(replace(opened.answer, relay=listener), route, "miss")
        try:
            return OpenAnswer(*self._again(asked, _kept(opened.answer, ())), listener)
        except BaseException:
            listener.leave()
            raise

    async def count(self, asked: Asked) -> Reply | int:
        """How many tokens the request would read."""
        return await self._router.count(asked)

    async def explain(self, asked: Asked) -> Decision:
        """What `chat` would begin with if nothing was kept."""
        return await self._router.explain(asked)

    async def _found(self, place: Place, route: Route) -> Kept | None:
        """What is kept here, else what the instances share."""
        kept, terms = self._cache.get(*place), _terms(route)
        if kept is not None or not terms.shared:
            return kept
        shared = await self._shared.look(place[1], terms.shared_timeout_ms / 1000)
        if shared is None:
            return None
        kept, seconds = shared
        self._cache.put(*place, kept, replace(terms, seconds=min(seconds, terms.seconds)))
        return kept

    async def _asked(self, asked: Asked, place: Place, route: Route) -> Answer:
        answer = await self._router.chat(asked)
        self._keep(_kept(answer, (answer.body,)), place, route)
        return answer

    async def _opened(self, asked: Asked, place: Place, route: Route) -> _Opened:
        answer = await self._router.open(asked)
        return _Opened(answer, Broadcast(self._recorded(answer, place, route), lambda: _forget(self._streams, place)))

    def _recorded(self, answer: OpenAnswer, place: Place, route: Route) -> Pieces:
        def whole(pieces: tuple[bytes, ...]) -> None:
            settled = self._decisions.get(answer.decision.id) or answer.decision
            self._keep(_kept(replace(answer, decision=settled), pieces), place, route)

        return Recorded(answer.relay, LARGEST, whole) if route.settings.cache else answer.relay

    def _keep(self, kept: Kept, place: Place, route: Route) -> None:
        if route.settings.cache:
            new = self._cache.put(*place, kept, terms := _terms(route))
            if new and terms.shared:
                self._shared.put(place[1], kept, terms.seconds)

    def _again(self, asked: Asked, kept: Kept) -> _About:
        """What there is to say about an answer that asked nobody: all of it but the answer itself."""
        first = kept.decision
        with self._router.admission(asked) as admission:
            admission.enter(first.facts.input_tokens)
            decision = replace(
                first,
                id=new_id(at := self._clock()),
                at=at,
                caller=asked.caller.name,
                model=asked.request.model,
                attempts=(),
                cost=savings.of_a_hit(first.cost),
                from_cache=True,
                first_token_seconds=None,
                seconds=0.0,
            )
            admission.settle(decision)
        self._decisions.settled(decision)
        Notes(trace.current.get()).end(decision, asked.request, model=kept.model)
        return decision, {**admission.headers, HEADER: "hit"}, kept.model, kept.dropped, 0.0, kept.output_limit


def _place(asked: Asked, route: Route) -> Place | None:
    """Where the answer is kept, or who else asks the same; None for requests that get an answer of their own."""
    settings, fields = route.settings, asked.dialect.identity(asked.request)
    if (settings.cache is None and not settings.coalesce) or not cacheable(fields, _terms(route)):
        return None
    members = ",".join(f"{target.name}={target.provider}/{target.model}" for target in route.targets)
    kinds = type(asked.dialect).__name__, type(asked.request).__name__
    also = asked.label or "", *kinds, route.name, members, settings.strategy
    return route.name, key_of(fields, asked.caller, *also)


def _terms(route: Route) -> Terms:
    settings = route.settings.cache
    return Terms(**settings.model_dump()) if settings else Terms(0.0, 1)


def _kept(answer: Answer | OpenAnswer, pieces: tuple[bytes, ...]) -> Kept:
    return Kept(pieces, answer.decision, answer.model, answer.dropped, answer.output_limit)


A = TypeVar("A", Answer, OpenAnswer)


def _marked(answer: A, route: Route, how: str) -> A:
    if route.settings.cache is None and not route.settings.coalesce:
        return answer
    return replace(answer, headers={**answer.headers, HEADER: how})


async def _together(
    under_way: dict[Place, _UnderWay[T]],
    place: Place,
    work: Callable[[], Coroutine[Any, Any, T]],
    unwanted: Callable[[T], None] | None = None,
) -> tuple[T, bool]:
    """The work's result, and whether it was begun for this caller. It ends when nobody waits for it any more.

    What one caller may not do says nothing about the others: they begin anew.
    """
    while True:
        first = place not in under_way
        if first:
            under_way[place] = _UnderWay(asyncio.get_running_loop().create_task(work()))
            under_way[place].task.add_done_callback(lambda task: _done(under_way, place, task))
        each = under_way[place]
        try:
            return await _waited(each, unwanted), first
        except LimitExceeded:
            if first:
                raise


async def _waited(each: _UnderWay[T], unwanted: Callable[[T], None] | None) -> T:
    each.waiting += 1
    try:
        return await asyncio.shield(each.task)
    except asyncio.CancelledError:
        if each.waiting == 1:
            each.task.cancel()
            if unwanted:
                each.task.add_done_callback(lambda task: _give_back(task, unwanted))
        raise
    finally:
        each.waiting -= 1


def _give_back(task: asyncio.Task[T], unwanted: Callable[[T], None]) -> None:
    if not task.cancelled() and not task.exception():
        unwanted(task.result())


def _done(under_way: dict[Place, _UnderWay[T]], place: Place, task: asyncio.Task[T]) -> None:
    """A stream stays until it has ended, for others to join; anything else is over."""
    failed = task.cancelled() or task.exception() is not None
    if failed or not isinstance(task.result(), _Opened):
        _forget(under_way, place)


def _forget(under_way: dict[Place, _UnderWay[T]], place: Place) -> None:
    under_way.pop(place, None)


def _leave(opened: _Opened) -> None:
    opened.broadcast.listen().leave()
