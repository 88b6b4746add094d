"""The breakers of all targets as requests use them: answers from memory, the store in the background.

No request waits for the store. One task reads it while traffic flows and writes what the others have to hear; when the
store is away or slow the breakers carry on by themselves and say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from routing import breaker, chance
from routing.board import KEY, Board, board_of, document_of
from routing.breaker_state import Action, Breaker, BreakerSettings, Manual, Phase, Probe
from routing.keeper import HealthSettings, Keeper
from routing.sharing import Event, Kind, Sharing
from routing.store import Conflict, Store, StoreError, update
from routing.types import Outcome, Refused, Speed, Ticket

__all__ = ["BreakerSettings", "BreakerView", "Event", "Health", "HealthSettings", "Kind"]

NEWEST = 0.2  # weight of the newest observation of speed
MEMORY = 300.0  # seconds in which an old observation loses half its weight


@dataclass(frozen=True, slots=True)
class BreakerView:
    """One target's health for people to read. Deadlines that are over are None."""

    target: str
    state: Phase
    generation: int
    since: float | None
    faults: int  # in the window, as counted here
    requests: int
    open_until: float | None
    parked_until: float | None
    probe: Probe | None
    share: float  # of the traffic that it gets, 0..1: below 1 while it ramps up, 0 while it gets none
    last_error: str | None
    manual: Manual | None
    speed: Speed | None
    refusal: Refused | None
    sharing: Literal["shared", "degraded", "local"]
    sharing_since: float | None


class Health:
    """Breakers and speeds of `targets`.

    `store` None keeps them to this process. `clock` gives epoch seconds and `random` numbers in [0, 1); `tell` hears of
    every event and must not wait. Methods raise KeyError for a target that is not among `targets`.
    """

    def __init__(
        self,
        targets: Mapping[str, BreakerSettings],
        store: Store | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = chance.random,
        tell: Callable[[Event], None] | None = None,
        settings: HealthSettings | None = None,
    ) -> None:
        settings = settings or HealthSettings()
        self._clock, self._random, self._tell = clock, random, tell or _ignore
        self._began = clock()
        self._keeper = Keeper(targets, settings, uuid.uuid4().hex[:12], random, self._changed, alone=store is None)
        self._sharing = Sharing(self._keeper, store, settings, clock, self._tell) if store else None
        self._store = store
        self._targets = tuple(targets)
        self._speeds: dict[str, tuple[Speed, float]] = {}

    # What requests call. Nothing here waits.

    def touch(self) -> None:
        """A request is here: keeps the background refresh going. Needs the running loop when there is a store."""
        self._keeper.touch(self._now())
        if self._sharing:
            self._sharing.start()

    def admit(self, target: str, *, last_resort: bool = False) -> Ticket | Refused:
        """Leave for one call. Each Ticket has to be recorded once, also when the caller leaves (NEUTRAL).

        With `last_resort` a target that is ramping up does not turn the call down: there is no other.
        """
        share = 0.0 if last_resort else self._random()
        answer = self._keeper.admit(target, self._now(), share=share)
        if isinstance(answer, Refused):
            return self._local(answer)
        if answer.probe and self._sharing:
            self._sharing.wake()
        return answer

    def refusal(self, target: str) -> Refused | None:
        """Why a plan should leave the target out; None also for one whose probe is due, so that `admit` gets asked."""
        refused = self._keeper.refusal(target, self._now())
        return refused and self._local(refused)

    def refusals(self) -> dict[str, Refused]:
        """The targets that a plan should leave out."""
        return {target: refused for target in self._targets if (refused := self.refusal(target))}

    def record(
        self, ticket: Ticket, outcome: Outcome, *, retry_after: float | None = None, error: str | None = None
    ) -> None:
        """Takes the outcome of a call; `retry_after` in seconds, `error` the error's class."""
        self._keeper.record(ticket, outcome, self._now(), retry_after=retry_after, error=error)
        if outcome is not Outcome.OK and self._sharing:
            self._sharing.wake()

    def observe(self, target: str, *, first_token_seconds: float | None, seconds: float, output_tokens: int) -> None:
        """Takes the speed of one answer: time to the first token if it was streamed, whole time, tokens in it."""
        now = self._now()
        old, at = self._speeds.get(target, (None, now))
        writing = seconds - (first_token_seconds or 0.0)
        pace = output_tokens / writing if output_tokens > 0 and writing > 0 else None
        weight = max(NEWEST, 1 - 0.5 ** ((now - at) / MEMORY)) if old else 1.0
        first = _blend(old.first_token_seconds if old else None, first_token_seconds, weight)
        tokens = _blend(old.tokens_per_second if old else None, pace, weight)
        self._speeds[target] = Speed(first, tokens), now

    def speed(self, target: str) -> Speed | None:
        """What this instance has seen of the target lately; times it never saw are 0."""
        return self._speeds[target][0] if target in self._speeds else None

    def speeds(self) -> dict[str, Speed]:
        """The speed of every target that answered here."""
        return {target: speed for target, (speed, _) in self._speeds.items()}

    def view(self, target: str) -> BreakerView:
        """One target's health, with times of the store's clock."""
        now, state, settings = self._now(), self._keeper.state(target), self._keeper.settings(target)
        refused = self._keeper.refusal(target, now)
        return BreakerView(
            target=target,
            state=state.phase,
            generation=state.generation,
            since=state.since or None,
            faults=state.tally.faults,
            requests=state.tally.faults + state.tally.ok,
            open_until=state.open_until if state.phase == "open" and state.open_until > now else None,
            parked_until=breaker.parked_until(state, settings, now) or None,
            probe=state.probe if state.probe and state.probe.until > now else None,
            share=0.0 if refused or state.phase != "closed" else breaker.ramp(state, settings, now),
            last_error=state.last_error,
            manual=breaker.manual(state, now),
            speed=self.speed(target),
            refusal=refused,
            sharing=self._how_shared(),
            sharing_since=self._shared_since(),
        )

    def views(self) -> dict[str, BreakerView]:
        """Every target's health."""
        return {target: self.view(target) for target in self._targets}

    # What waits, and is not on a request's path.

    async def warm(self, timeout: float = 0.25) -> None:  # noqa: ASYNC109 - bounds the wait, not the work
        """Gives the first look at the store at most `timeout` seconds; it goes on in the background."""
        self.touch()
        if self._sharing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._sharing.tried.wait()

    async def set_manual(
        self,
        target: str,
        action: Literal["isolate", "close", "reset"],
        by: str,
        reason: str,
        until: float | None = None,
    ) -> BreakerView:
        """An admin's order, in the store when this returns; only here, and published later, while the store is away.

        `until` is in epoch seconds, by default `manual_seconds` from now. Raises Conflict when the others' writes win
        again and again.
        """
        order: Action | None = None if action == "reset" else action
        if not await self._order_all(target, order, by, reason, until):
            self._keeper.order(target, order, by, reason, until, self._now())
            self.touch()
        return self.view(target)

    async def close(self) -> None:
        """Writes what the others have not heard yet, if the store lets it, and stops."""
        if self._sharing:
            await self._sharing.close()

    async def step(self) -> None:
        """What the background does, once: for who turns the clock by hand."""
        if self._sharing:
            await self._sharing.step()

    async def _order_all(self, target: str, order: Action | None, by: str, reason: str, until: float | None) -> bool:
        now, settings = self._now(), self._keeper.settings(target)

        def change(document: Mapping[str, Any] | None) -> Mapping[str, Any]:
            board, bad = board_of(document, self._targets) if document is not None else (Board(), None)
            if bad:
                raise ValueError(bad)
            state = board.state(target)
            state = replace(state, generation=max(state.generation, self._keeper.state(target).generation))
            after = breaker.ordered(state, settings, order, by, reason, until, now) if order else breaker.reset(state)
            return document_of(board.changed({target: after}))

        if self._sharing is None or self._store is None:
            return False
        try:
            stored = await self._sharing.limited(update(self._store, KEY, change), patient=True)
        except Conflict:
            raise
        except (StoreError, TimeoutError, ValueError):
            return False
        if stored is None or stored.newer:
            return False
        self._keeper.accept(stored, now)
        return True

    def _now(self) -> float:
        return self._sharing.now() if self._sharing else self._clock()

    def _local(self, refused: Refused) -> Refused:
        """With a time of this instance's own clock, by which the caller reckons."""
        return replace(refused, retry_at=refused.retry_at - (self._now() - self._clock()))

    def _shared_since(self) -> float | None:
        """Since when it is shared, or degraded: from the beginning until the first look has succeeded."""
        if self._sharing is None:
            return None
        return self._keeper.degraded_since or self._sharing.shared_since or self._began

    def _how_shared(self) -> Literal["shared", "degraded", "local"]:
        if self._sharing is None:
            return "local"
        known = self._sharing.shared_since is not None and self._keeper.degraded_since is None
        return "shared" if known else "degraded"

    def _changed(self, target: str, before: Breaker, after: Breaker, now: float, here: bool) -> None:
        kind = _kind(before, after)
        if kind:
            self._tell(Event(kind, target, now, here, after.last_error or ""))


def _kind(before: Breaker, after: Breaker) -> Kind | None:
    if after.manual and after.manual != before.manual:
        return "isolated" if after.manual.action == "isolate" else "forced_closed"
    if after.phase != before.phase:
        return "opened" if after.phase == "open" else after.phase
    if after.parked_until > before.parked_until:
        return "parked"
    return "reset" if before.manual and not after.manual else None


def _blend(old: float | None, new: float | None, weight: float) -> float:
    if new is None:
        return old or 0.0
    return new if not old else old + weight * (new - old)


def _ignore(event: Event) -> None:
    """Nobody listens."""
