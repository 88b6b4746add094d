"""One target as one instance knows it: what the store says, what requests see, what the others have not heard yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from routing import breaker
from routing import tally as tallies
from routing.breaker_state import Action, Breaker, BreakerSettings, from_document, to_document
from routing.documents import Versioned
from routing.tally import EMPTY, Tally
from routing.types import Outcome, Refused, Ticket

INTEREST = 5.0  # seconds for which having been asked for a ripe target makes an instance a good prober
PATIENT_CLAIM = 2.0  # seconds that an instance asked longer ago leaves a ripe target to the busier ones
LONGEST_BACKOFF = 5  # doublings

Tell = Callable[[str, Breaker, Breaker, float, bool], None]  # target, before, after, now, caused here


@dataclass(frozen=True, slots=True)
class Save:
    """A document to write. `etag` is the version it replaces, None for a new one."""

    target: str
    document: Mapping[str, Any]
    etag: str | None


@dataclass(frozen=True, slots=True)
class SetAside:
    """A document that cannot be read, to be moved out of the way."""

    target: str
    etag: str
    why: str


class Slot:
    """One target's breaker: `local` answers requests, `shared` is the store's document as last read or written."""

    def __init__(
        self, target: str, settings: BreakerSettings, holder: str, random: Callable[[], float], tell: Tell | None
    ) -> None:
        self.settings = settings
        self.shared = Breaker()
        self.local = Breaker()
        self.publish_at: float | None = None
        self.saving = False
        self._target, self._holder, self._random, self._tell = target, holder, random, tell
        self._etag: str | None = None
        self._untouchable = False  # a newer build wrote the document
        self._news: Tally = EMPTY
        self._sent: Tally = EMPTY  # the part of the news that the write in flight carries
        self._written = self.shared  # what the write in flight carries
        self._setbacks = 0
        self._asked_at = -math.inf

    @property
    def unpublished(self) -> bool:
        """Whether a decision made here is not in the store yet."""
        return not self._untouchable and (self.saving or self.local.generation > self.shared.generation)

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
        retry_after: float | None,
        error: str | None,
    ) -> None:
        """Takes an outcome into the local state, and remembers what the others have to hear."""
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
            seen = tallies.one(outcome is Outcome.OK, now, self.settings.window_seconds)
            self._news = self._merged(self._news, seen, now)
        self._set(after, now, here=True)
        if not same or after.parked_until != before.parked_until or self._worth_telling(outcome, now):
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

    def interested(self, now: float) -> bool:
        """Whether somebody here waits for the target's probe."""
        return self.local.phase != "closed" and abs(now - self._asked_at) <= self.settings.stale_seconds

    def read(self, held: Versioned | None, now: float, *, here: bool = False) -> SetAside | None:
        """Takes what the store holds; returns a document that nobody can read."""
        etag, bad = held.etag if held else None, None
        if etag != self._etag and not self.saving:
            self._etag, self._untouchable, self.shared = etag, held is not None and held.newer, Breaker()
            if held and not held.newer:
                bad = self._parse(held)
            self._take(now, here=here)
        if self.publish_at is not None and self.publish_at <= now:
            self.publish_at = None
        return bad

    def write(self, now: float) -> Save | None:
        """The write that is due, after a read: our decisions and reports, or else the claim of the probe."""
        if self.saving or self._untouchable or (self.publish_at is not None and self._setbacks):
            return None
        self.publish_at, shared = None, self.shared
        after = breaker.settle(shared, self.local, self.settings, self._news, now, jitter=self._random())
        if after is shared and self._may_claim(now):
            after = breaker.claim(shared, self.settings, now, holder=self._holder)
        if after is shared:
            self._setbacks = 0
            return None
        self.saving, self._written, self._sent, self._news = True, after, self._news, EMPTY
        return Save(self._target, to_document(after), self._etag)

    def saved(self, etag: str, now: float) -> None:
        """The write was done."""
        self.saving, self._sent, self._setbacks = False, EMPTY, 0
        self.shared, self._etag = self._written, etag
        self._take(now, here=True)

    def conflict(self, now: float) -> None:
        """Another instance wrote first: look again soon, later each time."""
        self._news = self._merged(self._sent, self._news, now)
        self._later(now, 0.05)

    def failed(self, now: float, wait: float) -> None:
        """The write came to nothing, or nobody knows to what: its counts are not sent twice."""
        self._later(now, wait)

    def _later(self, now: float, wait: float) -> None:
        self.saving, self._sent = False, EMPTY
        self._setbacks = min(self._setbacks + 1, LONGEST_BACKOFF)
        self.publish_at = now + self._random() * wait * 2.0**self._setbacks

    def _parse(self, held: Versioned) -> SetAside | None:
        try:
            self.shared = from_document(held.document)
        except ValueError as error:
            self._etag = None
            return SetAside(self._target, held.etag, str(error)[:200])
        return None

    def _take(self, now: float, *, here: bool) -> None:
        self._set(breaker.adopt(self.local, self.shared), now, here=here)
        if self.local.generation > self.shared.generation and self.publish_at is None:
            self.publish_at = now

    def _set(self, after: Breaker, now: float, *, here: bool) -> None:
        before, self.local = self.local, after
        if after.generation != before.generation:
            self._news = self._sent = EMPTY
        if self._tell and (after.generation != before.generation or after.parked_until != before.parked_until):
            self._tell(self._target, before, after, now, here)

    def _publish(self, now: float, within: float) -> None:
        at = now + self._random() * within
        self.publish_at = at if self.publish_at is None else min(self.publish_at, at)

    def _worth_telling(self, outcome: Outcome, now: float) -> bool:
        """A fault is urgent until enough of them are known; then the next ordinary look is soon enough."""
        known = breaker.sated(self.shared, self.settings, now) or breaker.suspected(self.shared, self.settings, now)
        return outcome is Outcome.FAULT and not known

    def _may_claim(self, now: float) -> bool:
        shared, asked = self.shared, abs(now - self._asked_at)
        if self.local.generation != shared.generation or not breaker.ripe(shared, self.settings, now):
            return False
        due = shared.probe.until if shared.probe else shared.open_until
        return asked <= INTEREST or (asked <= self.settings.stale_seconds and now - due >= PATIENT_CLAIM)

    def _merged(self, old: Tally, new: Tally, now: float) -> Tally:
        return tallies.merged(old, new, now, self.settings.window_seconds, self.settings.failure_threshold)
