"""A caller who leaves takes the provider's work with it, at whatever moment and however it goes."""

from __future__ import annotations

import socket
from collections.abc import Callable

import openai
import pytest

from local.providers import Fault
from tests.routes_for import CHAT, ONCE, Stage, chat_body, heard, now, raw_request, read_until, reset

AT_ONCE = 0.25  # seconds in which the provider must have heard
KEEPALIVE = b": keep-alive"
Leave = Callable[[socket.socket], None]


@pytest.fixture(params=[socket.socket.close, reset], ids=["closing", "resetting"])
def leave(request: pytest.FixtureRequest) -> Leave:
    """The two ways in which a connection ends."""
    return request.param


def assert_told(stage: Stage, standin, left_at: float) -> None:
    stage.until(standin, lambda it: len(it.cancelled) == 1)
    assert standin.cancelled[0].cancelled_at - left_at < AT_ONCE
    assert standin.running == 0


def assert_well(stage: Stage, standin) -> None:
    """The provider is not blamed: a request that goes well is answered by it."""
    standin.behave(fault=None, tokens_per_second=None, latency=0.0)
    assert stage.ask().json()["choices"][0]["message"]["content"].startswith(heard(standin)[:20])


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_before_the_whole_body_was_sent_no_provider_is_asked(stage, leave, stream, caplog):
    one = stage.standin(name="one")
    stage.serve(one)
    body = chat_body(stream=stream)
    with stage.connection() as connection:
        connection.sendall(raw_request(body)[: -len(body) // 2])
        leave(connection)
    assert_well(stage, one)
    assert one.asked == 1
    assert "failed in the router" not in caplog.text


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("kind", ["openai", "azure_openai"])
def test_before_the_headers(stage, leave, stream, kind):
    one, two = stage.standin(kind, "one", fault=Fault("hang")), stage.standin(name="two")
    stage.serve(one, two)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=stream)))
        stage.until(one, lambda it: it.running == 1)
        left_at = now()
        leave(connection)
    assert_told(stage, one, left_at)
    assert two.asked == 0
    assert_well(stage, one)


@pytest.mark.parametrize("fault", [Fault("slow_first_token"), Fault("stall", after=1)], ids=["silent", "role only"])
def test_before_the_first_token(stage, leave, fault):
    one = stage.standin(name="one", fault=fault)
    stage.serve(one)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=True)))
        stage.until(one, lambda it: it.delivered == 1)
        left_at = now()
        leave(connection)
    assert_told(stage, one, left_at)
    assert_well(stage, one)


def test_while_comments_keep_it_waiting_for_the_first_token(stage, leave):
    one, two = stage.standin(name="one", fault=Fault("hang")), stage.standin(name="two")
    stage.serve(one, two, server={"keepalive_seconds": 0.03})
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=True)))
        read_until(connection, KEEPALIVE)
        read_until(connection, KEEPALIVE)
        left_at = now()
        leave(connection)
    assert_told(stage, one, left_at)
    assert two.asked == 0
    assert_well(stage, one)


def test_in_the_middle_of_a_plain_answer(stage, leave):
    one = stage.standin(name="one", fault=Fault("stall"))
    stage.serve(one)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body()))
        stage.until(one, lambda it: it.requests and it.requests[0].status == 200)
        left_at = now()
        leave(connection)
    assert_told(stage, one, left_at)


@pytest.mark.parametrize("keepalive", [15.0, 0.03], ids=["in silence", "among comments"])
def test_in_the_middle_of_a_stream_that_stalls(stage, leave, keepalive):
    one = stage.standin(name="one", fault=Fault("stall", after=4))
    stage.serve(one, server={"keepalive_seconds": keepalive})
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=True)))
        read_until(connection, b"one)" if keepalive > 1 else KEEPALIVE)
        left_at = now()
        leave(connection)
    assert_told(stage, one, left_at)
    assert_well(stage, one)


def test_in_the_middle_of_a_stream_that_flows(stage, leave):
    one = stage.standin("azure_openai", "one", tokens=10_000, tokens_per_second=200)
    stage.serve(one)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=True)))
        read_until(connection, b"asked;")
        left_at = now()
        leave(connection)
    assert_told(stage, one, left_at)
    assert_well(stage, one)


def test_in_the_middle_of_a_stream_that_nobody_reads(stage):
    one = stage.standin(name="one", tokens=100_000)
    stage.serve(one)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=True)))
        read_until(connection, b"asked;")
        left_at = now()
    assert_told(stage, one, left_at)
    assert one.delivered < 100_000, "who does not read holds the provider back"


def test_between_the_finish_and_the_end(stage, leave):
    one = stage.standin(name="one", tokens=4, fault=Fault("stall", after=6))
    stage.serve(one)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=True)))
        read_until(connection, b'"finish_reason":"stop"')
        left_at = now()
        leave(connection)
    assert_told(stage, one, left_at)
    assert_well(stage, one)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_right_after_the_end_there_is_nothing_to_cancel(stage, leave, stream, caplog):
    one = stage.standin(name="one")
    stage.serve(one)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=stream)))
        read_until(connection, b"[DONE]" if stream else b'"usage"')
        leave(connection)
    assert_well(stage, one)
    assert (one.finished, one.cancelled) == (2, [])
    assert not caplog.records


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_while_the_router_waits_to_try_again_nobody_is_asked_any_more(stage, stream):
    one = stage.standin(name="one", fault=Fault("rate_limited", retry_after_ms=250))
    stage.serve(one)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=stream)))
        stage.until(one, lambda it: it.finished == 1)
    with pytest.raises(TimeoutError):
        stage.until(one, lambda it: it.asked > 1, 0.4)


def test_many_who_leave_make_no_provider_look_ill(stage):
    one = stage.standin(name="one", fault=Fault("hang"))
    stage.serve(one)
    for number in range(1, 16):
        with stage.connection() as connection:
            connection.sendall(raw_request(chat_body(stream=bool(number % 2))))
            stage.until(one, lambda it, wanted=number: it.asked == wanted)
    stage.until(one, lambda it: it.left == 15, AT_ONCE)
    assert_well(stage, one)


def test_a_next_request_on_the_same_connection_is_no_leaving(stage):
    one = stage.standin(name="one", latency=0.05)
    stage.serve(one)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body()) * 2)
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 2 or answers.count(b'"usage"') < 2:
            answers += connection.recv(65536)
    assert (one.finished, one.cancelled) == (2, [])


async def test_the_sdks_client_that_gives_up_cancels_too(stage):
    one = stage.standin(name="one", fault=Fault("hang"))
    stage.serve(one, route={"retry": ONCE})
    async with stage.async_sdk(timeout=0.15) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(**CHAT)
        left_at = now()
    assert_told(stage, one, left_at)


def test_closing_the_sdks_stream_cancels(stage):
    one = stage.standin(name="one", tokens=10_000, tokens_per_second=200)
    stage.serve(one)
    with stage.sdk() as client:
        with client.chat.completions.create(**CHAT, stream=True) as stream:
            next(stream)
        left_at = now()
        assert_told(stage, one, left_at)
