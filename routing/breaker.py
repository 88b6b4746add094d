"""The circuit breaker: closed -> open -> half_open -> closed, as pure functions over one frozen state.

`admit` gives leave for one call, `record` takes its outcome, `claim` takes the single probe; `breaker_shared` makes one
state of what many instances know. Times are epoch seconds of one clock, `jitter` and `share` lie in [0, 1), and nothing
here waits or reads.

No deadline is believed that lies further ahead than its setting could have put it: a clock that jumped back can delay a
target by that setting at most, never hold it for ever.
"""

from __future__ import annotations

from dataclasses import replace

from routing import tally as tallies
from routing.breaker_state import MANUAL_LONGEST, Action, Breaker, BreakerSettings, Manual, Probe
from routing.tally import EMPTY, SKEW, Tally
from routing.types import Outcome, Refused, Ticket

ASK_AGAIN = 1.0  # seconds until a refusal that depends on others (a probe, the ramp) is worth asking about again
RAMP = (0.10, 0.25, 0.50)  # share of the traffic in each third of `ramp_seconds`


def admit(
    state: Breaker, settings: BreakerSettings, target: str, now: float, *, holder: str, share: float, alone: bool = True
) -> tuple[Breaker, Ticket | Refused]:
    """Leave for one call to `target`, or the reason why not.

    `holder` names this instance, `share` is drawn anew for each call and decides who passes while traffic ramps up.
    `alone` says that there is nobody to claim the probe from: the call that finds the target ripe is then the probe.
    """
    if refused := refusal(state, settings, target, now, holder=holder):
        return state, refused
    if manual(state, now):
        return state, Ticket(target, state.generation)
    if state.phase == "closed":
        if share < ramp(state, settings, now):
            return state, Ticket(target, state.generation)
        return state, Refused(target, "ramping", now + ASK_AGAIN)
    if ripe(state, settings, now):
        if not (alone or _stale(state, settings, now)):
            return state, Refused(target, "probing", now + ASK_AGAIN)
        state = claim(state, settings, now, holder=holder)
    return _started(state, settings, now), Ticket(target, state.generation, probe=True)


def refusal(state: Breaker, settings: BreakerSettings, target: str, now: float, *, holder: str) -> Refused | None:
    """Why the target cannot be asked at all; None when `admit` is worth a try: closed, ripe, or ours to probe."""
    if state.phase == "closed" and not state.manual and not state.parked_until:
        return None
    if order := manual(state, now):
        return Refused(target, "isolated", order.until) if order.action == "isolate" else None
    if now < (parked := parked_until(state, settings, now)):
        return Refused(target, "parked", parked)
    if state.phase == "closed" or ripe(state, settings, now):
        return None
    if state.phase == "open":
        return Refused(target, "open", state.open_until)
    probe = state.probe
    if (
        probe
        and probe.holder == holder
        and probe.started is None
        and probe.until - now > settings.claim_lease_seconds / 2
    ):
        return None
    return Refused(target, "probing", now + ASK_AGAIN)


def record(
    state: Breaker,
    settings: BreakerSettings,
    ticket: Ticket,
    outcome: Outcome,
    now: float,
    *,
    jitter: float,
    holder: str,
    retry_after: float | None = None,
    error: str | None = None,
) -> Breaker:
    """The state after the end of one call that `holder` made. News of another generation changes nothing.

    Nor does any news while an admin's order is in force. `retry_after` is in seconds and belongs to `Outcome.PARKED`;
    `error` is the error's class.
    """
    if ticket.generation != state.generation or manual(state, now):
        return state
    if error:
        state = replace(state, last_error=error[:80])
    if state.phase == "half_open":
        return _probed(state, settings, outcome, now, jitter, holder, retry_after)
    if state.phase == "open" or outcome is Outcome.NEUTRAL:
        return state
    if outcome is Outcome.PARKED:
        return _parked(state, settings, now, retry_after)
    if outcome is Outcome.LONG_OPEN:
        return _opened(state, now, now + settings.long_open_seconds, _streak(state, settings, now))
    news = tallies.one(outcome is Outcome.OK, now, settings.window_seconds)
    state = replace(state, tally=_merged(state, settings, news, now))
    return trip(state, settings, now, jitter) if alarming(state.tally, settings) else state


def alarming(tally: Tally, settings: BreakerSettings) -> bool:
    """Whether these outcomes are reason to open: too many faults in a row, or too large a share of them."""
    if len(tally.run) >= settings.failure_threshold:
        return True
    faults = tally.faults
    total = faults + tally.ok
    return total >= settings.minimum_requests and faults / total >= settings.failure_ratio


def trip(state: Breaker, settings: BreakerSettings, now: float, jitter: float) -> Breaker:
    """Open: `open_seconds`, doubled for each opening since the last healthy period, at most `max_open_seconds`."""
    streak = _streak(state, settings, now)
    length = settings.open_seconds * 2.0 ** (streak - 1) * (1 + settings.open_jitter * jitter)
    return _opened(state, now, now + min(length, settings.max_open_seconds), streak)


def ripe(state: Breaker, settings: BreakerSettings, now: float) -> bool:
    """Whether the probe is anyone's to claim: the open time is over, or the last claimant's lease is."""
    if now < parked_until(state, settings, now) or manual(state, now):
        return False
    if state.phase == "open":
        return not ahead(state.open_until, now, max(settings.max_open_seconds, settings.long_open_seconds))
    return state.phase == "half_open" and not (
        state.probe and ahead(state.probe.until, now, max(settings.probe_lease_seconds, settings.claim_lease_seconds))
    )


def claim(state: Breaker, settings: BreakerSettings, now: float, *, holder: str) -> Breaker:
    """The probe is `holder`'s, for as long as a claim lasts, if it was ripe; otherwise unchanged."""
    if not ripe(state, settings, now):
        return state
    return _claimed(state, settings, now, holder, state.successes if state.phase == "half_open" else 0)


def renewed(state: Breaker, settings: BreakerSettings, now: float) -> Breaker:
    """The running probe's lease prolonged, but not beyond `probe_longest_seconds` after its start."""
    probe = state.probe
    if probe is None or probe.started is None:
        return state
    until = min(now + settings.probe_lease_seconds, probe.started + settings.probe_longest_seconds)
    return replace(state, probe=replace(probe, until=max(until, probe.until)))


def ordered(
    state: Breaker, settings: BreakerSettings, action: Action, by: str, reason: str, until: float | None, now: float
) -> Breaker:
    """An admin's order: `isolate` refuses every call, `close` lets every call pass, until `until` (epoch seconds)."""
    expiry = min(now + settings.manual_seconds if until is None else until, now + MANUAL_LONGEST)
    order = Manual(action, by, reason, expiry)
    if action == "isolate":
        return replace(state, generation=state.generation + 1, manual=order, tally=EMPTY, suspicion=None)
    return Breaker(generation=state.generation + 1, manual=order, last_error=state.last_error)


def reset(state: Breaker) -> Breaker:
    """As if nothing had ever happened: closed, no order, no hold, no ramp."""
    return Breaker(generation=state.generation + 1)


def manual(state: Breaker, now: float) -> Manual | None:
    """The order in force."""
    order = state.manual
    return order if order and ahead(order.until, now, MANUAL_LONGEST) else None


def parked_until(state: Breaker, settings: BreakerSettings, now: float) -> float:
    """The end of the hold in epoch seconds, 0 without one."""
    return state.parked_until if ahead(state.parked_until, now, settings.max_parked_seconds) else 0.0


def ahead(deadline: float, now: float, longest: float) -> bool:
    """Whether the deadline is to come, and no further away than its setting could have put it."""
    return now < deadline <= now + longest + SKEW


def ramp(state: Breaker, settings: BreakerSettings, now: float) -> float:
    """The share of the traffic that a closed target gets, 0..1."""
    elapsed = now - state.since
    if not state.streak or elapsed < -SKEW or elapsed >= settings.ramp_seconds:
        return 1.0
    return RAMP[max(0, int(elapsed * len(RAMP) / settings.ramp_seconds))]


def _probed(
    state: Breaker,
    settings: BreakerSettings,
    outcome: Outcome,
    now: float,
    jitter: float,
    holder: str,
    retry_after: float | None,
) -> Breaker:
    probe = state.probe
    if probe is None or probe.holder != holder or probe.started is None:
        return state
    if outcome is Outcome.OK:
        return _passed(state, settings, now, holder)
    if outcome is Outcome.FAULT:
        return trip(state, settings, now, jitter)
    if outcome is Outcome.LONG_OPEN:
        return _opened(state, now, now + settings.long_open_seconds, state.streak)
    parked = _parked(state, settings, now, retry_after) if outcome is Outcome.PARKED else state
    return _opened(parked, now, now, state.streak)


def _passed(state: Breaker, settings: BreakerSettings, now: float, holder: str) -> Breaker:
    successes = state.successes + 1
    if successes < settings.half_open_successes:
        return _claimed(state, settings, now, holder, successes)
    return replace(_next(state, now), phase="closed", probe=None, successes=0)


def _parked(state: Breaker, settings: BreakerSettings, now: float, retry_after: float | None) -> Breaker:
    length = settings.parked_seconds if retry_after is None else max(0.0, retry_after)
    until = now + min(length, settings.max_parked_seconds)
    return replace(state, parked_until=max(until, parked_until(state, settings, now)))


def _opened(state: Breaker, now: float, until: float, streak: int) -> Breaker:
    fresh = _next(state, now)
    return replace(fresh, phase="open", open_until=until, streak=streak, probe=None, successes=0)


def _claimed(state: Breaker, settings: BreakerSettings, now: float, holder: str, successes: int) -> Breaker:
    probe = Probe(holder, now + settings.claim_lease_seconds)
    return replace(_next(state, now), phase="half_open", probe=probe, successes=successes)


def _next(state: Breaker, now: float) -> Breaker:
    return replace(state, generation=state.generation + 1, since=now, tally=EMPTY, suspicion=None)


def _streak(state: Breaker, settings: BreakerSettings, now: float) -> int:
    healthy = state.phase == "closed" and now - state.since >= settings.healthy_seconds
    return 1 if healthy else min(state.streak + 1, 32)


def _started(state: Breaker, settings: BreakerSettings, now: float) -> Breaker:
    assert state.probe is not None  # only a half-open state that is ours gets here
    until = now + settings.probe_lease_seconds
    return replace(state, probe=replace(state.probe, until=until, started=now))


def _stale(state: Breaker, settings: BreakerSettings, now: float) -> bool:
    """Nobody has probed for so long that waiting for a claim would keep a rarely used target open for ever."""
    due = state.probe.until if state.probe else state.open_until
    return now - due >= settings.stale_seconds


def _merged(state: Breaker, settings: BreakerSettings, news: Tally, now: float) -> Tally:
    return tallies.merged(state.tally, news, now, settings.window_seconds, settings.failure_threshold)
