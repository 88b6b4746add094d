"""Notices to whoever listens: what this instance sees happen to a target's breaker, told behind the requests."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from routing.background import Background
from routing.errors import RouterError
from routing.fresh import SecretUnavailable
from routing.sharing import Event

KEPT = 100  # notices that wait; the oldest give way
BREAKER = "breaker"  # the function of a client that is called
_log = logging.getLogger(__name__)


class Hub(Protocol):
    """Where clients are connected. Every method raises RouterError or SecretUnavailable when it cannot be reached."""

    async def client(self, user: str) -> dict[str, str]: ...

    async def send(self, target: str, argument: Mapping[str, Any]) -> None: ...

    async def check(self) -> None: ...


class Notices:
    """Sends in the order in which things happen. What cannot be sent is dropped: the status says how things stand."""

    def __init__(self, hub: Hub | None, background: Background) -> None:
        self.hub, self._background = hub, background
        self._waiting: deque[Mapping[str, Any]] = deque(maxlen=KEPT)
        self._sending = False

    def tell(self, event: Event) -> None:
        """Each instance tells what it did itself, so that clients hear of it once."""
        if self.hub is None or event.target is None or not event.here or event.kind == "set_aside":
            return
        self._waiting.append({"target": event.target, "event": event.kind, "at": event.at, "detail": event.detail})
        if not self._sending:
            self._sending = True
            self._background.start(self._send(self.hub))

    async def _send(self, hub: Hub) -> None:
        try:
            while self._waiting:
                await hub.send(BREAKER, self._waiting.popleft())
        except (RouterError, SecretUnavailable) as error:
            self._waiting.clear()
            _log.warning("Notices are not sent: %s", error)
        finally:
            self._sending = False
