"""Whatever a client sends, it gets an answer that says what is wrong; never a 500, and never a stack trace."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as some

from local.providers import Fault
from tests.routes_for import CHAT, CHAT_PATH, HELLO, KEY, chat_body, raw_request, read_until

fuzzing = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def post(stage, content: bytes, **headers: str):
    with stage.http() as client:
        return client.post(CHAT_PATH, content=content, headers=headers)


NOT_JSON = [
    pytest.param(b"", "line 1 column 0", id="nothing"),
    pytest.param(b'{"model": "chat",\n  "messages": [,]}', "line 2 column 16", id="comma"),
    pytest.param(b'{"model": "chat"', "line 1 column 16", id="no end"),
    pytest.param(b'{"a": 1}{', "line 1 column 9", id="two"),
    pytest.param(b'{"a": NaN}', "line 1 column 7", id="NaN"),
    pytest.param(b'{"a": "\xff"}', "line 1 column 8", id="not UTF-8"),
    pytest.param(b"\xff\xfe{\x00}\x00", "line 1 column 1", id="UTF-16"),
    pytest.param(b'{"a": ' + b"[" * 100_000, "line 1 column", id="deep"),
    pytest.param(b'{"a": ' + b"9" * 5_000 + b"}", "line 1 column", id="long number"),
]


@pytest.mark.parametrize(("content", "place"), NOT_JSON)
def test_a_body_that_is_not_json_is_told_where(stage, content, place):
    one = stage.standin(name="one")
    stage.serve(one)
    answer = post(stage, content)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (400, "invalid_json", "invalid_request_error")
    assert place in error["message"]
    assert len(error["message"]) < 300
    assert one.asked == 0


def test_half_a_character_is_passed_on_as_unreadable(stage):
    one = stage.standin(name="one")
    stage.serve(one)
    answer = post(stage, rb'{"model": "chat", "messages": [{"role": "user", "content": "plan it \ud83d"}]}')
    assert answer.status_code == 200
    assert json.loads(one.requests[0].asked.body)["messages"][0]["content"] == "plan it \ufffd"


@pytest.mark.parametrize("content", [b"[]", b"null", b'"text"', b"7", b'{"temperature": 1e400}'])
def test_json_that_is_no_request_is_400(stage, content):
    stage.serve(stage.standin(name="one"))
    answer = post(stage, content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [HELLO[0], {"role": "user", "content": "Hi", **fields}]}


PLACES = [
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"model": 7}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": {"role": "user"}}, "messages"),
    ({"messages": ["Hi"]}, "messages[0]"),
    (message(role="robot"), "messages[1].role"),
    (message(role=None), "messages[1].role"),
    (message(content=7), "messages[1].content"),
    (message(content={"type": "text"}), "messages[1].content"),
    (message(content=["Hi"]), "messages[1].content[0]"),
    (message(content=[{"text": "Hi"}]), "messages[1].content[0].type"),
    (message(content=[{"type": "text", "text": 7}]), "messages[1].content[0].text"),
    (message(content=[{"type": "image_url", "image_url": "u"}]), "messages[1].content[0].image_url"),
    (message(content=[{"type": "image_url", "image_url": {}}]), "messages[1].content[0].image_url.url"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": True}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"tools": {}}, "tools"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": "7"}, "max_completion_tokens"),
    ({"metadata": []}, "metadata"),
    ({"router": "fast"}, "router"),
    ({"router": {"tusk": "general"}}, "router.tusk"),
    ({"router": {"task": "poetry"}}, "router.task"),
    ({"router": {"only": []}}, "router.only"),
    ({"router": {"only": ["one", "nobody"]}}, "router.only[1]"),
    ({"router": {"deny": ["nobody"]}}, "router.deny[0]"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("fields", "param"), PLACES, ids=[json.dumps(fields)[:60] for fields, _ in PLACES])
def test_a_wrong_field_is_named(stage, fields, param, stream):
    one = stage.standin(name="one")
    stage.serve(one)
    answer = post(stage, json.dumps({**CHAT, "stream": stream, **fields}).encode())
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "invalid_request")
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["x-should-retry"] == "false"
    assert one.asked == 0


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    "fields",
    [{"model": "one", "router": {"only": ["two"]}}, {"router": {"deny": ["one", "two"]}}, {"messages": IMAGE}],
    ids=["only", "deny", "image"],
)
def test_a_request_that_suits_no_target_is_400_and_says_why(stage, fields, stream):
    stage.serve(stage.standin(name="one"), stage.standin(name="two"))
    answer = stage.ask(**fields, stream=stream)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "no_suitable_target")
    assert "one: " in error["message"]


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(stage, field):
    stage.serve(stage.standin(name="one"))
    answer = post(stage, json.dumps({name: value for name, value in CHAT.items() if name != field}).encode())
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("name", ["gpt-9", "é" * 1_000, "a\r\nx-injected: 1", "\x00", "<b>"], ids=repr)
def test_an_unknown_model_is_404_and_lists_what_exists(stage, name):
    stage.serve(stage.standin(name="one"))
    answer = stage.ask(model=name)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "models are chat, gpt-alias, one" in error["message"]
    assert "x-injected" not in answer.headers
    assert len(error["message"]) < 600


def test_a_secret_in_a_wrong_field_is_not_repeated(stage):
    stage.serve(stage.standin(name="one"))
    answer = stage.ask(messages=[{"role": "user", "content": {"secret": "s3cr3t"}}], stream="s3cr3t")
    assert answer.status_code == 400
    assert "s3cr3t" not in answer.text


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "json",
        "",
    ],
)
def test_another_content_type_is_415(stage, kind):
    stage.serve(stage.standin(name="one"))
    answer = post(stage, chat_body(), **{"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", None]
)
def test_json_by_any_name_is_taken(stage, kind):
    stage.serve(stage.standin(name="one"))
    assert post(stage, chat_body(), **({"content-type": kind} if kind else {})).status_code == 200


LIMIT = {"server": {"max_body_bytes": 2_000}}


def padded(size: int) -> bytes:
    body = chat_body(user="")
    return body.replace(b'"user": ""', b'"user": "' + b"x" * (size - len(body)) + b'"')


def in_chunks(body: bytes):
    yield from (body[place : place + 500] for place in range(0, len(body), 500))


@pytest.mark.parametrize("pieces", [bytes, in_chunks], ids=["with its length", "in chunks"])
@pytest.mark.parametrize(("size", "status"), [(2_000, 200), (2_001, 413), (300_000, 413)])
def test_a_body_has_a_limit(stage, pieces, size, status):
    one = stage.standin(name="one")
    stage.serve(one, **LIMIT)
    with stage.http() as client:
        answer = client.post(CHAT_PATH, content=pieces(padded(size)))
        assert client.get("/health").status_code == 200
    assert answer.status_code == status
    assert one.asked == (status == 200)
    if status == 413:
        assert answer.json()["error"]["code"] == "request_too_large"
        assert "2000 bytes" in answer.json()["error"]["message"]


def test_a_body_announced_too_large_is_refused_before_it_is_sent(stage):
    stage.serve(stage.standin(name="one"), **LIMIT)
    head = raw_request(b"", "expect: 100-continue").replace(b"content-length: 0", b"content-length: 9999999999")
    with stage.connection() as connection:
        connection.sendall(head)
        assert read_until(connection, b"request_too_large").startswith(b"HTTP/1.1 413")


def test_a_body_without_end_is_refused_as_soon_as_it_is_too_large(stage):
    stage.serve(stage.standin(name="one"), **LIMIT)
    head = raw_request(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
    with stage.connection() as connection:
        connection.sendall(head + b"400\r\n" + b" " * 0x400 + b"\r\n" + b"400\r\n" + b" " * 0x400 + b"\r\n")
        assert read_until(connection, b"request_too_large").startswith(b"HTTP/1.1 413")


def test_who_is_not_known_is_refused_before_the_body_is_read(stage):
    stage.serve(stage.standin(name="one"))
    head = raw_request(b"").replace(KEY.encode(), b"wrong").replace(b"content-length: 0", b"content-length: 1000")
    with stage.connection() as connection:
        connection.sendall(head)
        assert read_until(connection, b"invalid_api_key").startswith(b"HTTP/1.1 401")


def test_a_message_of_the_provider_cannot_break_out_of_an_answer(stage):
    nasty = 'no"}\r\nx-injected: 1\r\n\r\n\ndata: [DONE]\n\n'
    stage.serve(stage.standin(name="one", fault=Fault("status", status=422, message=nasty)))
    answer = stage.ask(stream=True)
    assert (answer.status_code, answer.json()["error"]["message"]) == (422, nasty)
    assert "x-injected" not in answer.headers


# --- a fuzzer at the door ---

anything: Any = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format", "max_tokens"),
    *("max_completion_tokens", "metadata", "router", "n", "temperature", "functions", "modalities", "unheard_of"),
)
MESSAGE_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id", "unheard_of")
HINTS = ("task", "strategy", "only", "deny", "unheard_of")
odd_messages = some.lists(
    some.dictionaries(some.sampled_from(MESSAGE_FIELDS), anything, max_size=3).map(lambda odd: {**HELLO[0], **odd}),
    min_size=1,
    max_size=3,
)
odd_hints = some.dictionaries(some.sampled_from(HINTS), anything | some.just(["one"]), max_size=2)


class Door:
    """One connection to the router, kept as long as it lasts."""

    def __init__(self, stage) -> None:
        host, _, port = stage.url.removeprefix("http://").partition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=10)

    def answer(self, method: str, path: str, body: bytes = b"", headers: dict[str, Any] | None = None):
        given = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **(headers or {})}
        self._connection.request(method, path, body, given)
        response = self._connection.getresponse()
        return response.status, response.headers, response.read()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def door(stage):
    admin = {"tester": {"key": "env:ROUTER_TEST_CALLER", "role": "admin"}}  # so that no endpoint is left out
    stage.serve(stage.standin(name="one"), stage.standin("azure_openai", "two"), **LIMIT, callers=admin)
    built = Door(stage)
    yield built
    built.close()


def assert_sound(answer) -> None:
    """An answer, or an error in OpenAI's shape that puts the blame on the client."""
    status, headers, body = answer
    assert status in (200, 400, 401, 403, 404, 413, 415, 422), (status, body)
    assert b"Traceback" not in body
    if status != 200:
        assert headers["x-request-id"]
        assert set(json.loads(body)["error"]) >= {"message", "type", "param", "code"}


@fuzzing
@given(some.dictionaries(some.sampled_from(FIELDS), anything, max_size=3))
@example({"stream_options": {"include_usage": True}})
@example({"tool_choice": "none", "tools": [None]})
@example({"model": "one", "router": {"only": ["two"]}})
def test_odd_fields_never_break_it(door, odd):
    assert_sound(door.answer("POST", CHAT_PATH, json.dumps({**CHAT, **odd}).encode()))


@fuzzing
@given(odd_messages, odd_hints, some.booleans())
def test_odd_messages_and_hints_never_break_it(door, messages, hints, stream):
    odd = {"model": "chat", "messages": messages, "router": hints, "stream": stream}
    assert_sound(door.answer("POST", CHAT_PATH, json.dumps(odd).encode()))


@fuzzing
@given(some.binary(max_size=60), some.integers(0, 80), some.booleans())
def test_broken_bodies_never_break_it(door, garbage, place, insert):
    body = chat_body()
    cut = place if insert else place + len(garbage)
    assert_sound(door.answer("POST", CHAT_PATH, body[:place] + garbage + body[cut:]))


controls = "".join(map(chr, [*range(9), *range(10, 32), 127]))  # the server refuses these itself
latin = some.text(some.characters(max_codepoint=255, exclude_characters=controls), max_size=40)


@fuzzing
@given(
    some.dictionaries(
        some.sampled_from(
            ["authorization", "api-key", "x-request-id", "content-type", "accept", "cookie", "traceparent"]
        ),
        latin,
        max_size=4,
    )
)
@example({"content-type": "application/json; charset=\xe9"})
@example({"authorization": "Bearer \xe9"})
@example({"x-request-id": "\xe9"})
def test_odd_headers_never_break_it(door, headers):
    assume(not any(value.startswith((" ", "\t")) for value in headers.values()))
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    assert_sound(door.answer("POST", CHAT_PATH, chat_body(), encoded))


@fuzzing
@given(some.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"]), some.text("ab/.%2Ffé\ud7ff?=&+~:@", max_size=30))
@example("GET", "models/%")
@example("GET", "models/%e9")
@example("POST", "router/breakers/%00")
@example("GET", "models//")
def test_odd_paths_never_break_it(door, method, tail):
    path = "/v1/" + "".join(letter if letter.isascii() else "%C3%A9" for letter in tail)
    status, _, body = answer = door.answer(method, path, chat_body())
    if status == 404 and not body:
        return  # the host's own: no function answers there
    assert_sound(answer)
