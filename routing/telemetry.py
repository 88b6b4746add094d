"""What is told on a request's path, and the queue in which it waits: telling costs microseconds and never waits."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import Field

from routing import trace
from routing.settings import Settings
from routing.sharing import Event
from routing.telemetry_names import FOLLOWED, SECRET, SECRET_REFRESHED
from routing.trace import Exchange, Told, Trace

KEPT = 10_000  # things told that wait; a request is one


class TelemetrySettings(Settings):
    """`[telemetry]`: what is recorded beside numbers and names, and how often it is sent."""

    interval_seconds: float = Field(default=5.0, ge=0.05, le=60)
    metrics_seconds: float = Field(default=30.0, ge=0.05, le=300)
    record_content: bool = False  # prompts, and answers that are not streamed, as attributes of the request's span
    content_characters: int = Field(default=4_000, ge=100, le=32_000)  # of each, where content is recorded
    logs: bool = False  # our log records as well; leave it off where the host sends them already, as Functions does


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log."""

    at: int  # nanoseconds since the epoch
    level: str
    logger: str
    message: str
    request_id: str | None = None
    trace: Trace | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened outside of any request."""

    name: str
    attributes: Mapping[str, str]
    at: int = field(default_factory=time.time_ns)


Anything = Told | Event | Note | Line


class Telemetry:
    """Takes what is told until somebody takes it away; drops, and counts, what finds no room. Any thread may call."""

    def __init__(self, active: bool, settings: TelemetrySettings | None = None, kept: int = KEPT) -> None:
        settings = settings or TelemetrySettings()
        self.active, self._kept = active, kept
        self._content = settings.content_characters if settings.record_content and active else 0
        self.lost = 0
        self._waiting: deque[Anything] = deque()

    def exchange(self, request_id: str, path: str, headers: Mapping[str, str]) -> Exchange | None:
        """An HTTP request begins, in this context; None for those that are not followed."""
        followed = path in FOLLOWED
        exchange = Exchange(request_id, path, trace.begun(headers), self.tell, self._content) if followed else None
        trace.current.set(exchange)
        return exchange

    def tell(self, thing: Anything) -> None:
        """What a request, a breaker or the log has to say."""
        if not self.active:
            return
        if len(self._waiting) >= self._kept:
            self.lost += 1
        else:
            self._waiting.append(thing)

    def refreshed(self, secret: str) -> None:
        """A secret was read from its vault."""
        self.tell(Note(SECRET_REFRESHED, {SECRET: secret}))

    def take(self) -> Anything | None:
        """The oldest of what waits."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None
