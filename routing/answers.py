"""What leaves over HTTP: answers whole and streamed, errors in OpenAI's shape, and the headers that explain both."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from routing.broadcast import Pieces
from routing.dialects import CHAT, Dialect
from routing.errors import LimitExceeded, RouterError, RunError
from routing.router import Answer, OpenAnswer
from routing.types import Attempt

_UNPRINTABLE = re.compile(r"[^ -~]")


async def hung_up(receive: Receive) -> None:
    """Returns when the caller has hung up. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """Server-sent events: `keepalive` fills every long silence, and the source always learns when nobody listens."""

    media_type = "text/event-stream"

    def __init__(
        self,
        source: Pieces,
        headers: Mapping[str, str],
        keepalive_seconds: float,
        keepalive: bytes = CHAT.keepalive,
    ) -> None:
        super().__init__(source, headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        self._source, self._keepalive_seconds, self._keepalive = source, keepalive_seconds, keepalive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Two tasks of our own: the cancel scope of the base class may miss a stream that is always ready to go on."""
        writing = asyncio.ensure_future(self.stream_response(send))
        gone = asyncio.ensure_future(hung_up(receive))
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            writing.cancel()
            self._source.leave()
        await asyncio.wait({writing})
        if not writing.cancelled():
            writing.result()

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sent = _Sent(send, self._keepalive_seconds, self._keepalive)
        try:
            async for piece in self._source:
                await sent(piece)
        finally:
            sent.stop()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Sent:
    """Sends pieces of a body, and `keepalive` while there are none. One timer a stream, none a piece."""

    def __init__(self, send: Send, seconds: float, keepalive: bytes) -> None:
        self._send, self._seconds, self._keepalive = send, seconds, keepalive
        self._silent = False
        self._timer = asyncio.ensure_future(self._keep_alive())

    async def __call__(self, piece: bytes) -> None:
        self._silent = False
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    def stop(self) -> None:
        self._timer.cancel()

    async def _keep_alive(self) -> None:
        while True:
            self._silent = True
            await asyncio.sleep(self._seconds)
            if self._silent:
                await self._send({"type": "http.response.body", "body": self._keepalive, "more_body": True})


class LateRelay:
    """A stream whose headers had to be sent before it opened: from here an error can only be an event."""

    def __init__(self, opening: asyncio.Future[OpenAnswer], request_id: str, dialect: Dialect = CHAT) -> None:
        self._opening, self._request_id, self._dialect = opening, request_id, dialect
        self._said_wait = False
        self._over = False

    def __aiter__(self) -> LateRelay:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            raise StopAsyncIteration
        if not self._said_wait:
            self._said_wait = True
            return self._dialect.keepalive
        try:
            answer = await self._opening
        except RouterError as error:
            self._over = True
            return self._dialect.error_event(error, self._request_id, delivered=0)
        return await anext(answer.relay)

    def leave(self) -> None:
        abandon(self._opening)


def abandon(work: asyncio.Future[Any]) -> None:
    """Ends work that nobody waits for, also when it ended with a stream in its hands at that very moment."""
    work.cancel()
    work.add_done_callback(_leave_result)


def _leave_result(work: asyncio.Future[Any]) -> None:
    if not work.cancelled() and work.exception() is None and isinstance(result := work.result(), OpenAnswer):
        result.relay.leave()


def decision_headers(answer: Answer | OpenAnswer) -> dict[str, str]:
    """The decision in short, on every answer. What is not known yet, or was not done, has no header."""
    decision = answer.decision
    cost = decision.cost.micro_usd if decision.cost and not (decision.usage and decision.usage.estimated) else None
    headers = {
        "x-router-target": decision.target or "",
        "x-router-model": answer.model or "",
        "x-router-task": decision.plan.task.kind,
        "x-router-strategy": decision.plan.strategy,
        "x-router-attempts": "0" if decision.from_cache else str(len(decision.attempts) + 1),
        "x-router-decision-id": decision.id,
        "x-router-cost-usd": "" if cost is None else f"{cost / 1e6:.6f}",
        "x-router-max-tokens": "" if answer.output_limit is None else str(answer.output_limit),
        "x-router-dropped": ", ".join(answer.dropped),
        "x-router-overhead-ms": f"{answer.overhead_seconds * 1000:.2f}",
    }
    return {name: clean_header(value) for name, value in {**answer.headers, **headers}.items() if value}


def error_response(error: RouterError, request_id: str, dialect: Dialect = CHAT) -> Response:
    """The error in its caller's shape, with the headers by which clients decide whether to try again."""
    headers = {"x-should-retry": "true" if error.worth_retrying else "false"}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    if isinstance(error, LimitExceeded):
        headers |= error.headers
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = dialect.error_body(error, request_id)
    if isinstance(error, RunError):
        headers["x-router-attempts"] = str(len(error.attempts))
        body["router"] = {"attempts": [_shown(attempt) for attempt in error.attempts]}
    return json_response(to_json(body), request_id, headers, status=error.status)


def _shown(attempt: Attempt) -> dict[str, Any]:
    return {name: value for name, value in asdict(attempt).items() if value is not None}


def json_response(
    body: bytes,
    request_id: str,
    headers: Mapping[str, str] | None = None,
    *,
    status: int = 200,
    media_type: str = "application/json",
) -> Response:
    """JSON that is written already, with clean headers."""
    clean = {name: clean_header(value) for name, value in (headers or {}).items()}
    return Response(body, status, {**clean, "x-request-id": request_id}, media_type=media_type)


def clean_header(value: str) -> str:
    """A value that cannot end its header: what providers and callers name ends up here."""
    return _UNPRINTABLE.sub("?", value)[:256]
