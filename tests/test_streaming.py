"""A streamed answer: chunks as the provider sends them, usage only for who asks, comments while it is silent."""

from __future__ import annotations

import json

import pytest

from local.providers import Fault
from local.standin_behaviour import Behaviour
from local.standin_openai import OpenAI
from local.standin_wire import Answer, Asked, Stream
from tests.routes_for import CHAT, CHAT_PATH, HELLO, ONCE, chat_body, events, heard, raw_request, read_until, text_of

KINDS = ["openai", "azure_openai", "ollama"]
KEEPALIVE = ": keep-alive"
ALIVE = {"server": {"keepalive_seconds": 0.05}}

CHUNK = '{"id":"c-1","model":"m","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":%s}]}'
STOP = b'data: {"id":"c-1","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def data(text: str, finish: str = "null") -> bytes:
    return f"data: {CHUNK % (text, finish)}\n\n".encode()


class Saying(OpenAI):
    """Streams the bytes it was given, whatever they are."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def chat(self, asked: Asked, behaviour: Behaviour) -> Answer:
        return Stream((), self._pieces, ())


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_says_what_the_provider_says_and_ends(stage, kind):
    one = stage.standin(kind, "one")
    stage.serve(one)
    answer = stage.ask(stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
    *chunks, done = events(answer.text)
    assert (text_of(chunks), done) == (heard(one), "[DONE]")
    assert answer.text.count("[DONE]") == 1


def test_chunks_pass_through_byte_for_byte(stage):
    odd = b'data: {"choices" : [ {"index":0,"delta":{"content":"\\u00e9 \xc3\xa9"}} ], "unheard_of": 1.10 }\n\n'
    stage.serve(stage.speaking(Saying(odd, data("b"), STOP, DONE), "one"))
    assert stage.ask(stream=True).content == odd + data("b") + STOP + DONE


def test_chunks_are_found_however_the_bytes_are_cut(stage):
    whole = b"\xef\xbb\xbf: hello\r\n\r\n" + data("caf\u00e9").replace(b"\n", b"\r\n") + data("😀") + STOP + DONE
    stage.serve(stage.speaking(Saying(*(whole[place : place + 1] for place in range(len(whole)))), "one"))
    *chunks, done = events(stage.ask(stream=True).text)
    assert (text_of(chunks), done) == ("café😀", "[DONE]")


def test_an_end_without_done_gets_one(stage):
    stage.serve(stage.speaking(Saying(data("a"), STOP), "one"))
    assert stage.ask(stream=True).content == data("a") + STOP + DONE


def test_nothing_after_done_is_passed_on(stage):
    stage.serve(stage.speaking(Saying(data("a"), STOP, DONE, data("more"), b"data: {broken\n\n"), "one"))
    assert stage.ask(stream=True).content == data("a") + STOP + DONE


def test_chunks_are_forwarded_as_they_come(stage):
    one = stage.standin(name="one", fault=Fault("stall", after=3))
    stage.serve(one)
    with stage.connection() as connection:
        connection.sendall(raw_request(chat_body(stream=True)))
        received = read_until(connection, b"(model-of-")
    assert b"[DONE]" not in received


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}], ids=str)
def test_usage_is_asked_for_and_kept_from_who_did_not_ask(stage, kind, options):
    one = stage.standin(kind, "one")
    stage.serve(one)
    chunks = events(stage.ask(stream=True, stream_options=options).text)[:-1]
    assert all(chunk.get("usage") is None for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks if "prompt_filter_results" not in chunk)
    sent = json.loads(one.requests[0].asked.body)
    assert sent == {**CHAT, "model": "model-of-one", "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("kind", KINDS)
def test_usage_comes_once_for_who_asked(stage, kind):
    one = stage.standin(kind, "one")
    stage.serve(one)
    options = {"include_usage": True, "include_obfuscation": False}
    *chunks, done = events(stage.ask(stream=True, stream_options=options).text)
    reported = [chunk for chunk in chunks if chunk.get("usage")]
    assert (len(reported), reported[0]["choices"], done) == (1, [], "[DONE]")
    assert reported[0] is chunks[-1]
    assert json.loads(one.requests[0].asked.body)["stream_options"] == options


def test_a_server_that_refuses_stream_options_is_not_asked_for_usage(stage):
    one = stage.standin(name="one")
    stage.serve(one, providers={"one": {"stream_usage": False}})
    assert stage.ask(stream=True).status_code == 200
    assert "stream_options" not in json.loads(one.requests[0].asked.body)


def test_azures_first_chunk_without_choices_is_passed_on(stage):
    stage.serve(stage.standin("azure_openai", "one"))
    first, *_ = events(stage.ask(stream=True).text)
    assert first["choices"] == []
    assert first["prompt_filter_results"][0]["content_filter_results"]["violence"]["severity"] == "safe"


def test_comments_keep_the_connection_alive_until_the_first_token(stage):
    one = stage.standin(name="one", latency=0.3)
    stage.serve(one, **ALIVE)
    answer = stage.ask(stream=True)
    before, _, after = answer.text.partition("data: ")
    assert before.count(KEEPALIVE) >= 3
    assert KEEPALIVE not in after
    assert (answer.status_code, text_of(events(answer.text))) == (200, heard(one))


def test_comments_fill_a_silence_in_the_middle(stage):
    one = stage.standin(name="one", fault=Fault("stall", after=3, seconds=0.3))
    stage.serve(one, **ALIVE)
    answer = stage.ask(stream=True)
    tokens, _, rest = answer.text.partition(KEEPALIVE)
    assert '"content":"' in tokens
    assert rest.count(KEEPALIVE) >= 2
    assert text_of(events(answer.text)) == heard(one)


def test_the_sdk_reads_over_the_comments(stage):
    one = stage.standin(name="one", latency=0.15, fault=Fault("stall", after=3, seconds=0.15))
    stage.serve(one, **ALIVE)
    with stage.sdk() as client:
        chunks = list(client.chat.completions.create(model="chat", messages=HELLO, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == heard(one)


def test_an_early_200_carries_no_decision_that_might_change(stage):
    stage.serve(stage.standin(name="one", latency=0.2), **ALIVE)
    with stage.http(headers={"authorization": "Bearer caller-key-1", "x-request-id": "mine-2"}) as client:
        headers = client.post(CHAT_PATH, json={**CHAT, "stream": True}).headers
    assert headers["x-request-id"] == "mine-2"
    assert not [name for name in headers if name.startswith("x-router-")]


def test_failing_over_after_an_early_200_still_ends_well(stage):
    one, two = stage.standin(name="one", latency=0.15, fault=Fault("status", status=503)), stage.standin(name="two")
    stage.serve(one, two, **ALIVE, route={"retry": ONCE})
    answer = stage.ask(stream=True)
    assert (answer.status_code, text_of(events(answer.text))) == (200, heard(two))


def test_a_failure_after_an_early_200_is_an_error_event(stage):
    one = stage.standin(name="one", latency=0.15, fault=Fault("status", status=503))
    stage.serve(one, **ALIVE, route={"retry": ONCE})
    answer = stage.ask(stream=True)
    (event,) = events(answer.text)
    assert answer.status_code == 200
    assert event["error"]["code"] == "provider_unavailable"
    assert (event["delivered_tokens"], event["request_id"]) == (0, answer.headers["x-request-id"])


def test_a_provider_that_answers_a_streamed_request_in_one_piece_is_told_apart(stage):
    one, two = stage.standin(name="one", fault=Fault("invalid_json")), stage.standin(name="two")
    stage.serve(one, two)
    assert text_of(events(stage.ask(stream=True).text)) == heard(two)


AFTER = [
    pytest.param(Fault("cut", after=6), "provider_bad_reply", id="cut"),
    pytest.param(Fault("stall", after=6), "provider_timeout", id="stall"),
    pytest.param(Fault("malformed", after=6), "provider_bad_reply", id="malformed"),
    pytest.param(Fault("unfinished"), "provider_bad_reply", id="unfinished"),
    pytest.param(Fault("error_event", after=6), "provider_unavailable", id="error event"),
]


@pytest.mark.parametrize("kind", ["openai", "azure_openai"])
@pytest.mark.parametrize(("fault", "code"), AFTER)
def test_a_failure_after_the_first_token_is_the_last_event(stage, kind, fault, code):
    one, two = stage.standin(kind, "one", tokens=10, fault=fault), stage.standin(name="two")
    stage.serve(one, two, route={"idle_seconds": 0.15})
    answer = stage.ask(stream=True)
    *chunks, last = events(answer.text)
    assert last["error"]["code"] == code
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert last["request_id"] == answer.headers["x-request-id"]
    assert last["delivered_tokens"] == sum(bool(text_of([chunk])) for chunk in chunks) > 0
    assert "[DONE]" not in answer.text
    assert two.asked == 0
    stage.until(one, lambda it: it.running == 0, 0.25)


def test_a_stream_has_a_time_limit_as_a_whole(stage):
    one = stage.standin(name="one", tokens=10_000, tokens_per_second=100)
    stage.serve(one, route={"stream_seconds": 0.2})
    *chunks, last = events(stage.ask(stream=True).text)
    assert chunks
    assert last["error"]["code"] == "provider_timeout"
    stage.until(one, lambda it: len(it.cancelled) == 1, 0.25)


def test_a_provider_that_never_stops_sending_comments_is_cut_off(stage):
    pieces = [data("a"), *[b": ping\n\n"] * 300]
    one = stage.speaking(Saying(*pieces), "one")
    one.behave(tokens_per_second=500)
    stage.serve(one, route={"idle_seconds": 0.1})
    assert events(stage.ask(stream=True).text)[-1]["error"]["code"] == "provider_timeout"
