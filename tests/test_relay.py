"""A stream between provider and caller: held until it says something, settled once, whatever ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from routing.background import Background
from routing.errors import BadReply, ContentRefused, ProviderError, Unavailable
from routing.providers.base import Chunk, Stream
from routing.relay import Relay, StreamEnd, opened
from routing.types import Outcome, Usage
from tests.cranked import START, run

ROLE = Chunk(b"role;", model="m")
DONE = Chunk(b"done;")


def word(text: str) -> Chunk:
    return Chunk(text.encode(), meaningful=True, tokens=1)


class Tape(Stream):
    """Plays its steps: chunks, seconds of silence, and errors."""

    def __init__(self, *steps: Chunk | float | Exception) -> None:
        self.headers = {}
        self.closed = 0
        self._steps = steps

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield step

    async def aclose(self) -> None:
        self.closed += 1


class Listener:
    """What the caller got, and what was told at the end."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends: list[StreamEnd] = []

    @property
    def error(self) -> dict[str, Any]:
        event = self.pieces[-1]
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        return json.loads(event[6:])

    @property
    def end(self) -> StreamEnd:
        (end,) = self.ends
        return end


async def relay_of(tape: Tape, listener: Listener, background: Background, seconds: float = 100.0) -> Relay:
    return Relay(
        await opened(tape, background),
        background,
        listener.ends.append,
        idle_seconds=10.0,
        deadline=START + seconds,
        request_id="req_1",
    )


def listen(tape: Tape, *, leave_after: int | None = None, seconds: float = 100.0) -> Listener:
    async def listening() -> Listener:
        listener, background = Listener(), Background()
        relay = await relay_of(tape, listener, background, seconds)
        async for piece in relay:
            listener.pieces.append(piece)
            if len(listener.pieces) == leave_after:
                break
        relay.leave()
        await background.drain()
        return listener

    return run(listening())


def opening(tape: Tape) -> None:
    async def work() -> None:
        background = Background()
        try:
            await opened(tape, background)
        finally:
            await background.drain()

    run(work())


def test_what_came_before_the_first_word_goes_out_with_it() -> None:
    listener = listen(Tape(ROLE, word("a"), word("b"), DONE))
    assert listener.pieces == [b"role;a", b"b", b"done;"]


def test_a_stream_that_ends_well_is_ok() -> None:
    tape = Tape(word("a"), Chunk(b"", usage=Usage(3, 1)), DONE)
    listener = listen(tape)
    assert listener.pieces == [b"a", b"done;"]
    assert listener.end == StreamEnd(Outcome.OK, None, Usage(3, 1), 1)
    assert tape.closed == 1


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([], BadReply),
        ([ROLE], BadReply),
        ([ROLE, Unavailable("")], Unavailable),
        ([ContentRefused("")], ContentRefused),
    ],
    ids=["empty", "no word", "an error instead", "refused"],
)
def test_what_goes_wrong_before_the_first_word_is_raised(
    steps: list[Chunk | float | Exception], kind: type[ProviderError]
) -> None:
    tape = Tape(*steps)
    with pytest.raises(kind):
        opening(tape)
    assert tape.closed == 1


def test_a_late_failure_is_an_event_that_says_how_much_was_delivered() -> None:
    listener = listen(Tape(word("a"), word("b"), BadReply("The provider broke off its reply.")))
    assert listener.pieces[:2] == [b"a", b"b"]
    assert listener.error == {
        "error": {
            "message": "The provider broke off its reply.",
            "type": "provider_error",
            "param": None,
            "code": "provider_bad_reply",
        },
        "request_id": "req_1",
        "delivered_tokens": 2,
    }
    assert (listener.end.outcome, type(listener.end.error), listener.end.tokens) == (Outcome.FAULT, BadReply, 2)


def test_nothing_follows_an_error_event() -> None:
    listener = listen(Tape(word("a"), Unavailable(""), word("b")))
    assert len(listener.pieces) == 2


def test_silence_in_the_middle_is_too_slow() -> None:
    tape = Tape(word("a"), 11.0, word("b"))
    listener = listen(tape)
    assert listener.error["error"]["code"] == "provider_timeout"
    assert listener.end.outcome is Outcome.FAULT
    assert tape.closed == 1


def test_a_slow_stream_is_left_alone_while_it_says_something() -> None:
    assert listen(Tape(word("a"), 9.0, word("b"), 9.0, word("c"))).pieces == [b"a", b"b", b"c"]


def test_a_whole_stream_has_a_limit_too() -> None:
    listener = listen(Tape(word("a"), 9.0, word("b"), 9.0, word("c")), seconds=15.0)
    assert listener.pieces[:2] == [b"a", b"b"]
    assert listener.error["error"]["code"] == "provider_timeout"


def test_a_caller_who_leaves_is_neutral_and_ends_the_providers_work() -> None:
    tape = Tape(word("a"), word("b"), word("c"))
    listener = listen(tape, leave_after=2)
    assert listener.end == StreamEnd(Outcome.NEUTRAL, None, None, 2)
    assert tape.closed == 1


def test_a_caller_who_leaves_before_reading_is_neutral() -> None:
    async def leaving() -> StreamEnd:
        listener, background = Listener(), Background()
        relay = await relay_of(Tape(word("a")), listener, background)
        relay.leave()
        assert [piece async for piece in relay] == []
        await background.drain()
        return listener.end

    assert run(leaving()).outcome is Outcome.NEUTRAL


def test_a_cancelled_read_settles_nothing_until_the_caller_is_said_to_be_gone() -> None:
    async def cancelled() -> list[Outcome]:
        listener, background = Listener(), Background()
        relay = await relay_of(Tape(word("a"), 5.0, word("b")), listener, background)
        await anext(relay)
        reading = asyncio.ensure_future(anext(relay))
        await asyncio.sleep(1.0)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
        assert listener.ends == []
        relay.leave()
        relay.leave()
        await background.drain()
        return [end.outcome for end in listener.ends]

    assert run(cancelled()) == [Outcome.NEUTRAL]


def test_an_opening_that_is_cancelled_ends_the_providers_work() -> None:
    tape = Tape(ROLE, 60.0, word("a"))

    async def cancelled() -> None:
        background = Background()
        task = asyncio.ensure_future(opened(tape, background))
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])
        await background.drain()

    run(cancelled())
    assert tape.closed == 1
