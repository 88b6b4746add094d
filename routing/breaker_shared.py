"""One breaker of what many instances know: whose decision holds, and when their reports together trip.

Reports are a sample: a healthy call is not told, and in a large fleet not every fault is. So that the sum of them does
not look worse than the truth, it only raises a suspicion. While that lasts all instances tell all outcomes, or a fair
choice of them.
"""

from __future__ import annotations

from dataclasses import replace

from routing import tally as tallies
from routing.breaker import ahead, alarming, manual, parked_until, trip
from routing.breaker_state import Breaker, BreakerSettings, Heard, Suspicion
from routing.tally import EMPTY, LATELY, News, Tally

CALM = 5.0  # seconds for which a target that was cleared of a suspicion is not suspected again
FRESH = 0.3  # seconds after which an outcome is no evidence of how the target is now
SAY = 2  # of these that one report may bring, so that a busy instance does not speak for all
CLEARED = 0.4  # of the share of faults that would trip: less than that clears
PATIENCE = 3.0  # times `confirm_seconds`, after which what is neither clears, too


def settle(
    shared: Breaker,
    local: Breaker,
    settings: BreakerSettings,
    news: News,
    now: float,
    *,
    jitter: float,
    holder: str,
    known: float = 0.0,
) -> Breaker:
    """What the table should say, given what it says, what this instance decided and what it saw since its last report.

    The higher generation wins. At equal ones holds and leases are prolonged, never cut short, and `news` is absorbed.
    Returns `shared` itself when nothing needs to be written.
    """
    if local.generation > shared.generation:
        return replace(local, tally=EMPTY, suspicion=None)
    if local.generation < shared.generation:
        return shared
    if parked_until(local, settings, now) > shared.parked_until + 1:
        shared = replace(shared, parked_until=local.parked_until, last_error=local.last_error)
    ours, theirs = local.probe, shared.probe
    if ours and theirs and ours.holder == theirs.holder and ours.until > theirs.until:
        shared = replace(shared, probe=ours)
    absorbed = absorb(shared, settings, news, now, jitter=jitter, holder=holder, known=known)
    return absorbed if absorbed is shared else replace(absorbed, last_error=local.last_error or shared.last_error)


def adopt(local: Breaker, shared: Breaker) -> Breaker:
    """The local state after reading the shared one. What this instance counted stays while the generation does."""
    if local.generation > shared.generation:
        return local
    if local.generation < shared.generation:
        return replace(shared, tally=EMPTY)
    parked = max(local.parked_until, shared.parked_until)
    ours, theirs = local.probe, shared.probe
    probe = ours if ours and theirs and ours.holder == theirs.holder and ours.until > theirs.until else theirs
    error = local.last_error or shared.last_error
    return replace(shared, tally=local.tally, parked_until=parked, probe=probe, last_error=error)


def absorb(
    state: Breaker, settings: BreakerSettings, news: News, now: float, *, jitter: float, holder: str, known: float
) -> Breaker:
    """The shared state after `holder`'s report; the very same object when the report is not worth a write.

    Instances report faults, not every success, so their sum looks worse than the truth. A few faults therefore only
    raise a suspicion. While it lasts all instances report all outcomes, so that these are a fair sample. Who has
    `known` of it for `confirm_seconds` trips the breaker, or drops it.
    """
    if state.phase != "closed" or manual(state, now) or calm(state, now):
        return state
    pooled = _pooled(state, settings, news, now)
    if state.suspicion is None:
        raised = Suspicion(now) if suspicious(pooled, settings, now) else None
        return replace(state, tally=pooled, suspicion=raised) if news.counts.faults else state
    heard = _heard(state.suspicion, settings, news, now, holder)
    if _guilty(pooled, heard, settings, known):
        return trip(state, settings, now, jitter)
    if _cleared(heard, settings, known):
        return replace(state, tally=pooled, suspicion=None, calm_until=now + CALM)
    told = replace(state, tally=pooled, suspicion=replace(state.suspicion, heard=heard))
    return told if news.counts.buckets else state


def suspicious(tally: Tally, settings: BreakerSettings, now: float) -> bool:
    """Whether these reports are reason to ask everybody: they would trip, or hold as many faults within seconds."""
    newest = tallies.index_of(now, settings.window_seconds) - 1
    lately = sum(faults for index, _, faults in tally.buckets if index >= newest)
    return lately >= settings.failure_threshold or alarming(tally, settings)


def calm(state: Breaker, now: float) -> bool:
    """Whether the target was cleared so lately that a few faults are no news."""
    return ahead(state.calm_until, now, CALM)


def _heard(suspicion: Suspicion, settings: BreakerSettings, news: News, now: float, holder: str) -> Heard:
    """The newest outcomes, twice as many as prove anything."""
    fresh = tuple((at, ok, holder) for at, ok in news.lately[-SAY:] if now - FRESH <= at <= now)
    return (suspicion.heard + fresh)[-2 * _enough(settings) :]


def _guilty(pooled: Tally, heard: Heard, settings: BreakerSettings, known: float) -> bool:
    """Whether all reports together trip, or so large a share of the newest outcomes are faults.

    The latter have to be seen by as many instances as it takes faults in a row: fewer instances have their own counts
    to go by, which know the whole window.
    """
    if known >= settings.confirm_seconds and alarming(pooled, settings):
        return True
    faults = [holder for _, ok, holder in heard if not ok]
    many = len(faults) >= settings.failure_ratio * len(heard) and len(heard) >= 2 * _enough(settings)
    return many and len(set(faults)) >= settings.failure_threshold and known >= settings.confirm_seconds / 2


def _cleared(heard: Heard, settings: BreakerSettings, known: float) -> bool:
    faults = sum(not ok for _, ok, _ in heard)
    healthy = len(heard) >= _enough(settings) and faults < CLEARED * settings.failure_ratio * len(heard)
    return known >= settings.confirm_seconds * (1 if healthy else PATIENCE)


def _enough(settings: BreakerSettings) -> int:
    """Outcomes that clear a target. Twice as many convict it: they are looked at often, and fewer would mislead."""
    return min(2 * settings.minimum_requests, LATELY)


def _pooled(state: Breaker, settings: BreakerSettings, news: News, now: float) -> Tally:
    """All that was told, without faults that left the window: successes since then need not have been told."""
    window, longest = settings.window_seconds, settings.failure_threshold
    pooled = tallies.merged(state.tally, news.counts, now, window, longest)
    return replace(pooled, run=tuple(at for at in pooled.run if at > now - window))
