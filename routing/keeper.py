"""The keeper of the breakers: what to read and write, and when, as plain methods that never wait.

`due` says whether to load now; `loaded`, `saved`, `conflict` and `failed` take the store's answers. Whoever drives it
(the asyncio loop in `sharing`, the simulation in `benchmarks`) brings the clock and the randomness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Interval

from routing.board import Board, board_of, document_of
from routing.breaker_state import Action, Breaker, BreakerSettings
from routing.documents import Versioned
from routing.slot import Slot, Tell
from routing.types import Outcome, Refused, Ticket

PATIENT_REFRESH = 5.0  # seconds between two looks of an instance without traffic that still waits for a probe
CROWD = 25  # writes between two looks, beyond which not everybody needs to report
RETRY = 0.05  # seconds, doubling, until a decision that another write came before is written again
HURRY = 0.9  # of a refresh: until the next look while there is a suspicion
HICCUP = 0.3  # of the usual pause after a single failed look, while a verdict may be near
LONGEST_BACKOFF = 5  # doublings


@dataclass(frozen=True, slots=True)
class Save:
    """The document to write. `etag` is the version it replaces, None for a new one."""

    document: Mapping[str, Any]
    etag: str | None


@dataclass(frozen=True, slots=True)
class SetAside:
    """A document that cannot be read, to be moved out of the way."""

    etag: str
    why: str


@dataclass(frozen=True)
class HealthSettings:
    """How often and how patiently instances share what they know."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    refresh_seconds: Annotated[float, Interval(ge=0.05, le=60)] = 1.0
    publish_seconds: Annotated[float, Interval(ge=0, le=10)] = 0.25
    idle_seconds: Annotated[float, Interval(ge=0.1, le=3600)] = 10.0
    store_timeout_seconds: Annotated[float, Interval(ge=0.005, le=10)] = 0.08
    store_connect_seconds: Annotated[float, Interval(ge=0.005, le=60)] = 2.0
    store_failures: Annotated[int, Interval(ge=1, le=100)] = 3
    store_retry_seconds: Annotated[float, Interval(ge=0.05, le=60)] = 1.0
    max_store_retry_seconds: Annotated[float, Interval(ge=0.05, le=3600)] = 15.0


class Keeper:
    """The breakers of all targets as one instance, named `holder`, knows them.

    `random` gives numbers in [0, 1). `tell` hears of every change. `alone` says that there is no store at all. Times
    are epoch seconds of the store's clock.
    """

    def __init__(
        self,
        targets: Mapping[str, BreakerSettings],
        settings: HealthSettings,
        holder: str,
        random: Callable[[], float],
        tell: Tell | None = None,
        *,
        alone: bool = False,
    ) -> None:
        self._slots = {name: Slot(name, each, holder, random, tell) for name, each in targets.items()}
        self._settings = settings
        self._random = random
        self._alone = alone
        self._touched_at = -math.inf
        self._refresh_at = 0.0
        self._blocked_until = 0.0
        self._loading = False
        self._load_failures = 0
        self._save_failures = 0
        self._board = Board()
        self._etag: str | None = None
        self._untouchable = False  # a newer build wrote the document
        self._written: Board | None = None  # by the write in flight
        self._saves_known = 0  # at the last look
        self._hasty = False  # the last look came before its time
        self._setbacks = 0
        self._quiet_until = 0.0  # no writes before, after a setback
        self.loaded_at: float | None = None
        self.degraded_since: float | None = None

    @property
    def unpublished(self) -> bool:
        """Whether a decision made here is not in the store yet."""
        return not self._untouchable and any(slot.unpublished for slot in self._slots.values())

    @property
    def _suspecting(self) -> bool:
        return any(slot.suspecting for slot in self._slots.values())

    def touch(self, now: float) -> None:
        """A request is here: keep looking at the store."""
        self._touched_at = now

    def state(self, target: str) -> Breaker:
        """The state as requests see it. Raises KeyError for an unknown target, as the others do."""
        return self._slots[target].local

    def settings(self, target: str) -> BreakerSettings:
        """What the target's breaker follows."""
        return self._slots[target].settings

    def accept(self, held: Versioned, now: float) -> None:
        """Takes a document that was written by another way than `loaded`."""
        if self._written is None:
            self._read(held, now, here=True)
            return
        board, _ = board_of(held.document, self._slots)
        for target, slot in self._slots.items():
            slot.learn(board.state(target), now)

    def refusal(self, target: str, now: float) -> Refused | None:
        """Why the target cannot be asked at all; None when `admit` is worth a try."""
        return self._slots[target].refusal(now)

    def admit(self, target: str, now: float, *, share: float) -> Ticket | Refused:
        """Leave for one call, from memory. `share` in [0, 1) decides who passes while traffic ramps up."""
        alone = self._alone or self.degraded_since is not None
        return self._slots[target].admit(now, share=share, alone=alone)

    def record(
        self,
        ticket: Ticket,
        outcome: Outcome,
        now: float,
        *,
        retry_after: float | None = None,
        error: str | None = None,
    ) -> None:
        """Takes the outcome of one call; `retry_after` in seconds."""
        within = self._settings.publish_seconds
        self._slots[ticket.target].record(
            ticket,
            outcome,
            now,
            publish_within=within,
            hasty=self._hasty,
            retry_after=retry_after,
            error=error,
        )

    def order(self, target: str, action: Action | None, by: str, reason: str, until: float | None, now: float) -> None:
        """An admin's order; None resets the breaker."""
        self._slots[target].order(action, by, reason, until, now)
        self.touch(now)

    def next_at(self, now: float) -> float | None:
        """When `due` may have something to do; None while nothing is to be done before `touch` or an answer."""
        if self._alone or self._loading or self._written is not None:
            return None
        times = [at for slot in self._slots.values() if (at := slot.renew_at()) is not None]
        if abs(now - self._touched_at) <= self._settings.idle_seconds:
            times.append(_near(self._refresh_at, now, self._settings.refresh_seconds * 1.1))
            publish = [slot.publish_at for slot in self._slots.values() if slot.publish_at is not None]
            times += [max(_near(at, now, 300.0), _near(self._quiet_until, now, 300.0)) for at in publish]
        elif any(slot.interested(now) for slot in self._slots.values()):
            times.append(_near((self.loaded_at or 0.0) + PATIENT_REFRESH, now, PATIENT_REFRESH))
        if not times:
            return None
        longest = max(self._settings.max_store_retry_seconds, self._settings.refresh_seconds)
        return max(min(times), _near(self._blocked_until, now, longest))

    def hurry(self, now: float) -> None:
        """What is left to do is due now: the process ends."""
        self.touch(now)
        self._refresh_at = now

    def due(self, now: float) -> bool:
        """Whether to load all documents now; if so, `loaded` or `failed` must follow."""
        at = self.next_at(now)
        if at is None or now < at:
            return False
        for slot in self._slots.values():
            renew_at = slot.renew_at()
            if renew_at is not None and now >= renew_at:
                slot.renew(now)
        self._loading = True
        return True

    def loaded(self, held: Versioned | None, now: float) -> list[Save | SetAside]:
        """Takes what the store holds; returns what to do at once, in this order. A Save must be answered."""
        self._loading = False
        self._load_failures = 0
        self._judge(now)
        self.loaded_at = now
        self._hasty = now < self._refresh_at
        bad = self._read(held, now)
        hurry = HURRY if self._suspecting else 1.0
        self._refresh_at = now + self._settings.refresh_seconds * hurry * (0.9 + 0.2 * self._random())
        save = self._write(now, fair=not self._hasty)
        return [*([bad] if bad else []), *([save] if save else [])]

    def saved(self, stored: Versioned, now: float) -> None:
        """The write was done."""
        assert self._written is not None  # it was asked for
        self._board, self._etag, self._written = self._written, stored.etag, None
        self._save_failures = self._setbacks = 0
        self._judge(now)
        for slot in self._slots.values():
            slot.saved(now)

    def conflict(self, now: float) -> None:
        """Another instance wrote first. A decision is written again soon, a report when it is time to look again."""
        self._save_failures, self._written = 0, None
        deciding = [slot for slot in self._slots.values() if slot.deciding]
        for slot in self._slots.values():
            slot.conflict(now)
        if deciding:
            self._later(deciding, now, RETRY)

    def failed(self, now: float, *, saving: bool = False) -> None:
        """A load, or a save, came to nothing, or nobody knows to what."""
        if saving:
            self._save_failures, self._written = self._save_failures + 1, None
            for slot in self._slots.values():
                slot.failed()
            self._later([*self._slots.values()], now, self._settings.store_retry_seconds)
        else:
            self._loading = False
            self._load_failures += 1
            self._block(now)
        self._judge(now)

    def _read(self, held: Versioned | None, now: float, *, here: bool = False) -> SetAside | None:
        """Takes a version not seen yet; returns it when it cannot be read.

        What can be read of such a one is kept in memory, and so gets into the next.
        """
        etag, bad = held.etag if held else None, None
        if etag == self._etag:
            return None
        self._etag, self._untouchable, self._board = etag, held is not None and held.newer, Board()
        if held and not held.newer:
            self._board, why = board_of(held.document, self._slots)
            bad = SetAside(held.etag, why[:200]) if why else None
        self._take(now, here=here)
        if bad:
            self._etag, self._board = None, Board()
            self._take(now, here=here)
        return bad

    def _take(self, now: float, *, here: bool) -> None:
        for target, slot in self._slots.items():
            slot.read(self._board.state(target), now, here=here)

    def _write(self, now: float, *, fair: bool) -> Save | None:
        crowded = self._crowded()
        if self._untouchable:
            for slot in self._slots.values():
                slot.publish_at = None
            return None
        if now < _near(self._quiet_until, now, 300.0):
            return None
        changes = {target: slot.write(now, crowded=crowded, fair=fair) for target, slot in self._slots.items()}
        states = {target: state for target, state in changes.items() if state is not None}
        if not states:
            self._setbacks = 0
            return None
        self._written = self._board.changed(states)
        return Save(document_of(self._written), self._etag)

    def _crowded(self) -> bool:
        """Whether enough others write: the more do, the less likely it is this instance's turn to report."""
        few = CROWD if self._suspecting else CROWD // 3
        others, self._saves_known = self._board.saves - self._saves_known, self._board.saves
        return others > few and self._random() > (few / others) ** 2

    def _later(self, slots: list[Slot], now: float, wait: float) -> None:
        """Nothing is written for a while, longer each time; then what these slots have to say."""
        self._setbacks = min(self._setbacks + 1, LONGEST_BACKOFF)
        self._quiet_until = now + self._random() * wait * 2.0**self._setbacks
        for slot in slots:
            slot.publish_at = self._quiet_until

    def _block(self, now: float) -> None:
        """The store's own breaker: after each failure it is left alone, longer and longer after some in a row."""
        beyond = self._load_failures - self._settings.store_failures
        longest = self._settings.max_store_retry_seconds
        retry = min(self._settings.store_retry_seconds * 2.0 ** min(beyond, 16), longest)
        wait = retry if beyond >= 0 else self._settings.refresh_seconds
        if self._suspecting and self._load_failures == 1:
            wait *= HICCUP
        self._blocked_until = now + wait * (0.5 + 0.5 * self._random())

    def _judge(self, now: float) -> None:
        if max(self._load_failures, self._save_failures) < self._settings.store_failures:
            self.degraded_since = None
        elif self.degraded_since is None:
            self.degraded_since = now


def _near(at: float, now: float, longest: float) -> float:
    """`at`, unless a clock that jumped back put it further away than it was ever set."""
    return at if at <= now + longest else now
