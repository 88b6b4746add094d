"""A stream that also tells what the router does while it does it, for callers that ask for it.

With the request header `x-router-events: true` a streamed chat completion begins as soon as its plan is made. Events of
these names come before and after those of the answer, so that no second request is needed, whichever instance answers:

router.plan       the decision as it is before anybody was asked
router.asking     a call begins: target and number
router.failed     a call has failed: target, number, outcome, seconds, error
router.answering  the answer's first words are here: what the `x-router-*` headers say otherwise
router.decision   the decision as it is kept, after everything else
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, replace
from typing import Any

from pydantic_core import to_json

from routing.answers import abandon, decision_headers
from routing.broadcast import Pieces
from routing.errors import RouterError
from routing.router import Asked, OpenAnswer
from routing.types import Attempt, Decision

HEADER = "x-router-events"


def wanted(headers: Mapping[str, str]) -> bool:
    """Whether the caller asks for events."""
    return headers.get(HEADER, "").strip().lower() in ("true", "1")


class Watched:
    """What there is to tell of one request, and its answer in the midst of it.

    `find` looks a decision up by its id. Needs the running loop.
    """

    def __init__(
        self,
        asked: Asked,
        open_: Callable[[Asked], Coroutine[Any, Any, OpenAnswer]],
        find: Callable[[str], Decision | None],
    ) -> None:
        self._asked, self._find = asked, find
        self._told = deque[bytes]()
        self._news = asyncio.Event()
        self._id: str | None = None
        self._relay: Pieces | None = None
        self._over = False
        self._opening = asyncio.ensure_future(open_(replace(asked, watch=self)))

    def planned(self, decision: Decision) -> None:
        self._id = decision.id
        self._tell("plan", asdict(decision))

    def asking(self, target: str, number: int) -> None:
        self._tell("asking", {"target": target, "number": number})

    def failed(self, attempt: Attempt) -> None:
        self._tell("failed", asdict(attempt))

    async def headers(self) -> dict[str, str]:
        """Once it has begun: none while the answer is still to come, the answer's if nothing came before it.

        Raises the RouterError of a request for which no plan could be made.
        """
        await self._wait()
        return {} if self._told else decision_headers(self._opening.result())

    def __aiter__(self) -> Watched:
        return self

    async def __anext__(self) -> bytes:
        while not self._told:
            if self._over:
                raise StopAsyncIteration
            if self._relay is None:
                await self._wait()
                self._open()
                continue
            try:
                return await anext(self._relay)
            except StopAsyncIteration:
                self._close()
        return self._told.popleft()

    def leave(self) -> None:
        if self._relay is None:
            abandon(self._opening)
        else:
            self._relay.leave()

    async def _wait(self) -> None:
        """Until there is something to tell, or the answer has begun."""
        self._news.clear()
        news = asyncio.ensure_future(self._news.wait())
        try:
            if not self._told:
                await asyncio.wait({self._opening, news}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    def _open(self) -> None:
        """The answer has begun, or there will be none; if that is so, and all before it was told."""
        if self._told or not self._opening.done():
            return
        try:
            answer = self._opening.result()
        except RouterError as error:
            self._told.append(self._asked.dialect.error_event(error, self._asked.id, delivered=0))
            self._close()
        else:
            self._id, self._relay = answer.decision.id, answer.relay
            self._tell("answering", decision_headers(answer))

    def _close(self) -> None:
        self._over = True
        if self._id and (decision := self._find(self._id)):
            self._tell("decision", asdict(decision))

    def _tell(self, name: str, data: Mapping[str, Any]) -> None:
        self._told.append(b"event: router." + name.encode() + b"\ndata: " + to_json(data) + b"\n\n")
        self._news.set()
