"""One request to a stand-in: waits, answers, goes wrong as told, and notices when the caller leaves."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from local.standin_behaviour import Behaviour, Fault
from local.standin_state import Recorded, StandIn
from local.standin_wire import Answer, Asked, Operation, Refusal, Stream, Whole, decode

_BROKEN = b'data: {"id":"chatcmpl-broken","choices":[{"index":0,"delta":{"content":\n\n'
_HALF = b'{"id":"chatcmpl-broken","object":"chat.completion","choices":[{"index":0,"mess'
_REFUSED = frozenset(
    {"status", "rate_limited", "insufficient_quota", "unauthorized", "content_filter", "context_length_exceeded"}
)
_BREATH = 32  # events sent at most without letting the loop notice a caller who left


class Endpoint:
    """One operation of a stand-in's dialect as an ASGI app."""

    def __init__(self, standin: StandIn, operation: Operation) -> None:
        self.standin, self.operation = standin, operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers; a caller who left ends it silently."""
        body = await read_body(receive)
        if body is not None:
            asked = _asked(self.standin, scope, body)
            await Exchange(self.standin, asked, scope, receive, send).run(self.operation)


async def read_body(receive: Receive) -> bytes | None:
    """The request's body, None when the caller left while sending it."""
    parts = []
    while (message := await receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
    return None


def _asked(standin: StandIn, scope: Scope, body: bytes) -> Asked:
    document = decode(body) if body else None
    return Asked(
        number=standin.asked + 1,
        standin=standin.name,
        method=scope["method"],
        path=scope["path"],
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"))),
        params=scope.get("path_params", {}),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        body=body,
        document=document if isinstance(document, dict) else None,
    )


class Exchange:
    """Carries one request through; whatever ends it is written into the record at once."""

    def __init__(self, standin: StandIn, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        self.standin, self.asked = standin, asked
        self.record: Recorded = standin.record(asked)
        self._receive, self._send = receive, send
        self._transport: asyncio.Transport = scope["extensions"]["standin.transport"]["transport"]
        self._task = asyncio.current_task()
        self._gone = asyncio.Event()

    async def run(self, operation: Operation) -> None:
        """Answers the request, or stops the moment the caller leaves."""
        watcher = asyncio.create_task(self._watch())
        try:
            await self._play(operation)
        except asyncio.CancelledError:
            if self.record.cancelled_at is None or self._task is None:
                raise
            self._task.uncancel()
        finally:
            watcher.cancel()
            self.standin.forget()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()
        if self.record.finished_at is None and self._task is not None:
            self.standin.cancel(self.record)
            self._task.cancel()

    async def _play(self, operation: Operation) -> None:
        try:
            behaviour = self.standin.behaviour_for(self.asked)
        except ValueError as error:
            wrong = self.standin.dialect.refuse(Refusal(400, str(error), param="standin"))
            return await self._whole(wrong, None)
        if behaviour.latency:
            await asyncio.sleep(behaviour.latency)
        fault = behaviour.fault
        if fault and fault.kind == "hang":
            await _wait(fault.seconds)
        if fault and fault.kind == "drop":
            return await self._reset()
        answer = self._answer(operation, behaviour)
        if isinstance(answer, Stream):
            await self._stream(answer, behaviour)
        else:
            await self._paced(answer, behaviour)

    def _answer(self, operation: Operation, behaviour: Behaviour) -> Answer:
        fault, dialect = behaviour.fault, self.standin.dialect
        if fault and fault.kind in _REFUSED:
            return dialect.refuse(dialect.fault(fault))
        if fault and fault.kind in ("invalid_json", "empty_body"):
            return Whole(200, _HALF if fault.kind == "invalid_json" else b"")
        try:
            return operation(self.asked, behaviour)
        except Refusal as refusal:
            return dialect.refuse(refusal)

    async def _paced(self, answer: Whole, behaviour: Behaviour) -> None:
        """Waits as long as the tokens take, then sends them all, for better or worse."""
        fault = behaviour.fault if answer.tokens else None
        if answer.tokens:
            await asyncio.sleep(behaviour.first_token + answer.tokens / (behaviour.tokens_per_second or 1e9))
        if fault and fault.kind == "slow_first_token":
            await _wait(fault.seconds)
        if fault and fault.kind == "error_event":
            error = self.standin.dialect.refuse(self.standin.dialect.fault(fault))
            answer = Whole(200, error.body)
        elif fault and fault.kind in ("malformed", "unfinished"):
            answer = Whole(200, answer.body[: len(answer.body) // 2])
        elif fault and fault.kind == "empty_stream":
            answer = Whole(200, b"")
        await self._whole(answer, fault)

    async def _whole(self, answer: Whole, fault: Fault | None) -> None:
        length = {"content-length": str(len(answer.body)), "content-type": "application/json"}
        await self._start(answer.status, {**length, **answer.headers})
        half = len(answer.body) // 2
        if fault and fault.kind in ("cut", "reset", "stall"):
            await self._send({"type": "http.response.body", "body": answer.body[:half], "more_body": True})
            if await self._strike(fault):
                return
            self.standin.delivered_one(self.record)
            return await self._end(answer.body[half:])
        self.standin.delivered_one(self.record)
        await self._end(answer.body)

    async def _stream(self, stream: Stream, behaviour: Behaviour) -> None:
        fault = behaviour.fault
        await self._start(200, {"content-type": "text/event-stream; charset=utf-8", **stream.headers})
        events = stream.opening + stream.tokens + (() if fault and fault.kind == "unfinished" else stream.ending)
        if fault and fault.kind == "empty_stream":
            return await self._end()
        loop, first = asyncio.get_running_loop(), len(stream.opening)
        began = loop.time() + behaviour.first_token
        for place, event in enumerate(events):
            if fault and place == fault.after and await self._strike(fault):
                return
            if fault and fault.kind == "slow_first_token" and place == first:
                await _wait(fault.seconds)
                began = loop.time()
            if place >= first:
                number = min(place - first, len(stream.tokens) - 1)
                await _pause(loop, began, number, behaviour.tokens_per_second)
            if place % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            await self._event(event)
        await self._end()

    async def _event(self, event: bytes) -> None:
        await self._send({"type": "http.response.body", "body": event, "more_body": True})
        self.standin.delivered_one(self.record)

    async def _strike(self, fault: Fault) -> bool:
        """Lets a fault strike in the middle of a body; true when nothing can follow it."""
        if fault.kind == "stall":
            await _wait(fault.seconds)
        elif fault.kind == "malformed":
            await self._send({"type": "http.response.body", "body": _BROKEN, "more_body": True})
        elif fault.kind in ("cut", "reset"):
            await (self._reset() if fault.kind == "reset" else self._cut())
            return True
        elif fault.kind == "error_event":
            await self._event(self.standin.dialect.error_event(self.standin.dialect.fault(fault)))
            await self._end()
            return True
        return False

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.record.status = status
        self.standin.tell()
        taken = int((time.monotonic() - self.record.at) * 1000)
        common = {**self.standin.dialect.headers(self.asked), "openai-processing-ms": str(taken)}
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in {**common, **headers}.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _end(self, body: bytes = b"") -> None:
        """Finishes first and sends then: to the server an answer's end is a disconnect too."""
        self.standin.finish(self.record)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _cut(self) -> None:
        """Waits for the connection's end, or the server would complain that the answer has none."""
        self.standin.finish(self.record)
        self._transport.close()
        await self._gone.wait()

    async def _reset(self) -> None:
        self.standin.finish(self.record)
        lingering: Any = self._transport.get_extra_info("socket")
        lingering.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        await self._gone.wait()


async def _wait(seconds: float | None) -> None:
    """Sleeps; None is until the caller leaves."""
    if seconds is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(seconds)


async def _pause(loop: asyncio.AbstractEventLoop, began: float, number: int, per_second: float | None) -> None:
    """Until token `number` is due, counted from `began`, so that late wake-ups do not add up."""
    wait = began + (number / per_second if per_second else 0.0) - loop.time()
    if wait > 0:
        await asyncio.sleep(wait)
