"""A stand-in provider: how it is told to behave, what it was asked, and what became of that."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from local.standin_behaviour import Behaviour, Fault, changed
from local.standin_wire import Asked, Dialect, decode

_KEPT = 200  # requests remembered
_KEY_HEADERS = ("authorization", "api-key", "x-api-key")


@dataclass(slots=True)
class Recorded:
    """One request and what became of it. Times are `time.monotonic()`; None means it has not happened."""

    asked: Asked
    at: float
    era: int  # which reset it came after
    status: int | None = None
    chunks: int = 0  # events sent, or 1 for an answer in one piece
    finished_at: float | None = None  # answered in full, or broken off by a fault
    cancelled_at: float | None = None  # the caller left first

    def summary(self) -> dict[str, Any]:
        """As JSON, with the keys a caller sent left out."""
        asked = self.asked
        headers = {name: value for name, value in asked.headers.items() if name not in _KEY_HEADERS}
        request = {"number": asked.number, "method": asked.method, "path": asked.path, "query": dict(asked.query)}
        request |= {"headers": headers, "body": asked.body.decode("utf-8", "replace")}
        return request | {
            "at": self.at,
            "status": self.status,
            "chunks": self.chunks,
            "finished_at": self.finished_at,
            "cancelled_at": self.cancelled_at,
        }


class StandIn:
    """One stand-in provider. Change it while it runs; read what it saw."""

    def __init__(self, dialect: Dialect, name: str, behaviour: Behaviour) -> None:
        self.dialect, self.name, self.kind = dialect, name, dialect.kind
        self.url = ""
        self._first = behaviour
        self._watchers: set[asyncio.Event] = set()
        self._era = 0
        self.running = 0  # requests being answered now; a reset does not end them
        self.reset()

    def reset(self) -> None:
        """Behaves as at the start and has seen nothing."""
        self._era += 1
        self.behaviour = self._first
        self.queue: deque[Fault | None] = deque()
        self.asked = self.finished = self.left = self.delivered = 0
        self._kept: deque[Recorded] = deque(maxlen=_KEPT)

    def behave(self, **changes: Any) -> None:
        """Changes fields of its Behaviour, for good: `behave(latency=0.2, fault=Fault("status"))`."""
        self.behaviour = replace(self.behaviour, **changes)

    def fail(self, *faults: Fault | None) -> None:
        """One fault for each coming POST, None for one that goes well; then it behaves as before."""
        self.queue.extend(faults)

    @property
    def requests(self) -> list[Recorded]:
        """The last 200 requests, oldest first."""
        return list(self._kept)

    @property
    def cancelled(self) -> list[Recorded]:
        """Those of them whose caller left before the answer was finished."""
        return [record for record in self._kept if record.cancelled_at is not None]

    async def until(self, true: Callable[[StandIn], bool], seconds: float = 20.0) -> None:
        """Waits until `true(self)`; looks again whenever something happens here. Raises TimeoutError."""
        news = asyncio.Event()
        self._watchers.add(news)
        try:
            async with asyncio.timeout(seconds):
                while not true(self):
                    await news.wait()
                    news.clear()
        finally:
            self._watchers.discard(news)

    def tell(self) -> None:
        """Wakes whoever waits in `until`."""
        for news in self._watchers:
            news.set()

    def record(self, asked: Asked) -> Recorded:
        """Notes a request."""
        self.asked = asked.number
        self.running += 1
        recorded = Recorded(asked, time.monotonic(), self._era)
        self._kept.append(recorded)
        self.tell()
        return recorded

    def delivered_one(self, record: Recorded) -> None:
        """Counts an event, or an answer in one piece. News of a request from before a reset moves no counter."""
        record.chunks += 1
        self.delivered += record.era == self._era
        self.tell()

    def finish(self, record: Recorded) -> None:
        """Notes that nothing more will be sent."""
        record.finished_at = time.monotonic()
        self.finished += record.era == self._era
        self.tell()

    def cancel(self, record: Recorded) -> None:
        """Notes that the caller left first."""
        record.cancelled_at = time.monotonic()
        self.left += record.era == self._era
        self.tell()

    def forget(self) -> None:
        """Notes that a request occupies nobody any more."""
        self.running -= 1
        self.tell()

    def behaviour_for(self, asked: Asked) -> Behaviour:
        """How to behave this time: what the request asks for, else the next of the queue, else as always.

        Raises ValueError for a request whose wish cannot be read.
        """
        behaviour = self.behaviour
        if asked.method != "POST":
            return replace(behaviour, fault=None) if behaviour.fault else behaviour
        wish = _wish(asked)
        if wish is not None:
            behaviour = changed(behaviour, wish)
            if "fault" in wish or "kind" in wish:
                return behaviour
        return replace(behaviour, fault=self.queue.popleft()) if self.queue else behaviour

    def counters(self) -> dict[str, Any]:
        """Everything as JSON; `now` is the clock of the times."""
        return {
            "name": self.name,
            "kind": self.kind,
            "now": time.monotonic(),
            "asked": self.asked,
            "running": self.running,
            "finished": self.finished,
            "cancelled": self.left,
            "delivered": self.delivered,
            "behaviour": asdict(replace(self.behaviour, keys=())),
            "queue": [fault and asdict(fault) for fault in self.queue],
            "requests": [record.summary() for record in self._kept],
        }


def _wish(asked: Asked) -> dict[str, Any] | None:
    """What the request's `x-standin` header or `standin` field says to this stand-in.

    One object or a list of them; one with `at` is only for the stand-in of that name. Raises ValueError.
    """
    if "x-standin" in asked.headers:
        given: Any = decode(asked.headers["x-standin"])
    elif asked.document is not None and asked.document.get("standin") is not None:
        given = asked.document["standin"]
    else:
        return None
    for wish in given if isinstance(given, list) else [given]:
        if not isinstance(wish, dict):
            raise ValueError("standin: a JSON object, or a list of them")
        if wish.get("at", asked.standin) == asked.standin:
            return {name: value for name, value in wish.items() if name != "at"}
    return None
