"""One target as one instance knows it: what the store says, what requests see, what the others have not heard yet."""

from __future__ import annotations

import math
from collections.abc import Callable

from routing import breaker, breaker_shared
from routing import tally as tallies
from routing.breaker_state import Action, Breaker, BreakerSettings
from routing.tally import NO_NEWS, News
from routing.types import Outcome, Refused, Ticket

INTEREST = 5.0  # seconds for which having been asked for a ripe target makes an instance a good prober
PATIENT_CLAIM = 2.0  # seconds that an instance asked longer ago leaves a ripe target to the busier ones

Tell = Callable[[str, Breaker, Breaker, float, bool], None]  # target, before, after, now, caused here


class Slot:
    """One target's breaker: `local` answers requests, `shared` is what the store said when last read or written."""

    def __init__(
        self, target: str, settings: BreakerSettings, holder: str, random: Callable[[], float], tell: Tell | None
    ) -> None:
        self.settings = settings
        self.shared = Breaker()
        self.local = Breaker()
        self.publish_at: float | None = None
        self._target, self._holder, self._random, self._tell = target, holder, random, tell
        self._news: News = NO_NEWS
        self._sent: News = NO_NEWS  # the part of the news that the write in flight carries
        self._written: Breaker | None = None  # what the write in flight carries
        self._suspected_at = -math.inf  # when this instance learned of the suspicion: clocks need not agree on it
        self._asked_at = -math.inf

    @property
    def unpublished(self) -> bool:
        """Whether a decision made here is not in the store yet."""
        return self._written is not None or self.local.generation > self.shared.generation

    def refusal(self, now: float) -> Refused | None:
        """Why the target cannot be asked at all."""
        return breaker.refusal(self.local, self.settings, self._target, now, holder=self._holder)

    def admit(self, now: float, *, share: float, alone: bool) -> Ticket | Refused:
        """Leave for one call, from memory. A ripe target is claimed when the store is read next."""
        before = self.local
        after, answer = breaker.admit(
            before, self.settings, self._target, now, holder=self._holder, share=share, alone=alone
        )
        if before.phase != "closed" and breaker.ripe(before, self.settings, now):
            self._asked_at = now
        if after is not before:
            self._set(after, now, here=True)
            self.publish_at = now  # a running probe is the one thing the others must know before they claim it
        return answer

    def record(
        self,
        ticket: Ticket,
        outcome: Outcome,
        now: float,
        *,
        publish_within: float,
        hasty: bool,
        retry_after: float | None,
        error: str | None,
    ) -> None:
        """Takes an outcome into the local state, and remembers what the others have to hear.

        Who has just been `hasty` does not hurry for a mere fault again.
        """
        before = self.local
        after = breaker.record(
            before,
            self.settings,
            ticket,
            outcome,
            now,
            jitter=self._random(),
            holder=self._holder,
            retry_after=retry_after,
            error=error,
        )
        if after is before:
            return
        same = after.generation == before.generation
        if same and after.tally is not before.tally:
            good = outcome is Outcome.OK
            seen = News(tallies.one(good, now, self.settings.window_seconds), ((now, good),))
            self._news = self._told(self._news, seen, now)
        self._set(after, now, here=True)
        if not same or after.parked_until != before.parked_until or (not hasty and self._worth_telling(outcome, now)):
            self._publish(now, publish_within)

    def order(self, action: Action | None, by: str, reason: str, until: float | None, now: float) -> None:
        """An admin's order; None resets the breaker."""
        if action is None:
            after = breaker.reset(self.local)
        else:
            after = breaker.ordered(self.local, self.settings, action, by, reason, until, now)
        self._set(after, now, here=True)
        self.publish_at = now

    def renew(self, now: float) -> None:
        """Prolongs the lease of our running probe."""
        self.local = breaker.renewed(self.local, self.settings, now)
        self.publish_at = now

    def renew_at(self) -> float | None:
        """When the lease of our running probe wants renewing."""
        probe = self.local.probe
        if self.local.phase != "half_open" or probe is None or probe.started is None or probe.holder != self._holder:
            return None
        last = probe.started + self.settings.probe_longest_seconds
        return probe.until - self.settings.probe_lease_seconds / 2 if probe.until < last else None

    @property
    def suspecting(self) -> bool:
        """Whether all are asked for evidence."""
        return self.shared.suspicion is not None

    def interested(self, now: float) -> bool:
        """Whether somebody here waits for the target's probe."""
        return self.local.phase != "closed" and abs(now - self._asked_at) <= self.settings.stale_seconds

    def read(self, shared: Breaker, now: float, *, here: bool = False) -> None:
        """Takes what the store says. `here`: because of what this instance did."""
        self._share(shared, now)
        self._take(now, here=here)

    def learn(self, shared: Breaker, now: float) -> None:
        """Takes what the store says while a write is in flight, by which it will be known whether that came first."""
        self._set(breaker_shared.adopt(self.local, shared), now, here=True)

    def write(self, now: float, *, crowded: bool, fair: bool) -> Breaker | None:
        """What the store should say instead: our decisions and reports, or else the claim of the probe.

        When the store is `crowded` reports are left for another time. So they are after a look that came early because
        of faults, which is not `fair` as evidence: it would show more of them than there are. None when there is
        nothing to write.
        """
        self.publish_at, shared = None, self.shared
        silent = crowded or (self.suspecting and not fair)
        news = NO_NEWS if silent else self._news
        known = now - min(self._suspected_at, now)
        after = breaker_shared.settle(
            shared, self.local, self.settings, news, now, jitter=self._random(), holder=self._holder, known=known
        )
        if after is shared and self._may_claim(now):
            after = breaker.claim(shared, self.settings, now, holder=self._holder)
        if after is shared:
            return None
        if not silent:
            self._sent, self._news = self._news, NO_NEWS
        self._written = after
        return after

    @property
    def deciding(self) -> bool:
        """Whether the write in flight carries more than a report, and cannot wait for the next look."""
        after, before = self._written, self.shared
        return after is not None and (after.generation, after.parked_until, after.probe) != (
            before.generation,
            before.parked_until,
            before.probe,
        )

    def saved(self, now: float) -> None:
        """The write was done."""
        if self._written is not None:
            if self._written.suspicion and not self.shared.suspicion:
                self.publish_at = now + self.settings.confirm_seconds  # who raises it sees to its end
            self._share(self._written, now)
            self._sent, self._written = NO_NEWS, None
            self._take(now, here=True)

    def conflict(self, now: float) -> None:
        """Another instance wrote first: what was sent is still to be said."""
        self._news = self._told(self._sent, self._news, now)
        self.failed()

    def failed(self) -> None:
        """The write came to nothing, or nobody knows to what: its counts are not sent twice."""
        self._sent, self._written = NO_NEWS, None

    def _share(self, shared: Breaker, now: float) -> None:
        before, after = self.shared.suspicion, shared.suspicion
        if after and (before is None or before.since != after.since):
            self._suspected_at = now
        self.shared = shared

    def _take(self, now: float, *, here: bool) -> None:
        self._set(breaker_shared.adopt(self.local, self.shared), now, here=here)
        if self.local.generation > self.shared.generation and self.publish_at is None:
            self.publish_at = now

    def _set(self, after: Breaker, now: float, *, here: bool) -> None:
        before, self.local = self.local, after
        if after.generation != before.generation:
            self._news = self._sent = NO_NEWS
        if self._tell and (after.generation != before.generation or after.parked_until != before.parked_until):
            self._tell(self._target, before, after, now, here)

    def _publish(self, now: float, within: float) -> None:
        at = now + self._random() * within
        self.publish_at = at if self.publish_at is None else min(self.publish_at, at)

    def _worth_telling(self, outcome: Outcome, now: float) -> bool:
        """A fault is urgent until there is a suspicion; then the next ordinary look is soon enough."""
        known = breaker_shared.calm(self.shared, now) or self.suspecting
        return outcome is Outcome.FAULT and not known

    def _may_claim(self, now: float) -> bool:
        shared, asked = self.shared, abs(now - self._asked_at)
        if self.local.generation != shared.generation or not breaker.ripe(shared, self.settings, now):
            return False
        due = shared.probe.until if shared.probe else shared.open_until
        return asked <= INTEREST or (asked <= self.settings.stale_seconds and now - due >= PATIENT_CLAIM)

    def _told(self, old: News, new: News, now: float) -> News:
        return tallies.told(old, new, now, self.settings.window_seconds, self.settings.failure_threshold)
