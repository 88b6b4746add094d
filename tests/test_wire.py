"""What a chat request may look like, and what is read in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from routing.errors import InvalidRequest
from routing.types import Usage
from routing.wire import ChatRequest, path_of, usage_of

HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}


def parsed(**fields: Any) -> ChatRequest:
    return ChatRequest.parse(json.dumps({"model": "auto", "messages": HELLO, **fields}).encode())


def refused(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        ChatRequest.parse(body)
    return caught.value


# --- refusals


UNREADABLE = [
    ("nothing", b"", "The body is not valid JSON: EOF while parsing a value at line 1 column 0."),
    ("cut", b'{"model":\n "a', "The body is not valid JSON: EOF while parsing a string at line 2 column 3."),
    ("a comma too many", b'{\n"a": 1,\n}', "The body is not valid JSON: trailing comma at line 3 column 1."),
    ("not a number", b'{"a": NaN}', "The body is not valid JSON: expected value at line 1 column 7."),
    ("not UTF-8", b'{"a": "\xff"}', "The body is not valid JSON: invalid unicode code point at line 1 column 8."),
    ("a list", b"[]", "The body must be a JSON object."),
    ("a null", b"null", "The body must be a JSON object."),
]


@pytest.mark.parametrize(("body", "message"), [case[1:] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
def test_what_cannot_be_read_says_where(body: bytes, message: str) -> None:
    error = refused(body)
    assert (error.message, error.code, error.param, error.status) == (message, "invalid_json", None, 400)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"a": [0, {"b": 1e400}]}', "a[1].b"),
        (b'{"a": 1, "router": {"max_cost_usd": -1E+999}}', "router.max_cost_usd"),
        (b'{"' + b"a" * 300 + b'": 1e400}', "a" * 100),
    ],
    ids=["deep", "below a double", "at a long name"],
)
def test_a_number_beyond_a_double_is_named_by_its_path(body: bytes, path: str) -> None:
    error = refused(body)
    assert (error.param, error.code, error.status) == (path, "invalid_json", 400)
    assert error.message == f"{path}: the number is too large, such as 1e400."


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\uDE00\uD83D hi", "\ufffd\ufffd hi"),
        (rb"\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\\ud83d \udc00", "\\ud83d \ufffd"),
        (rb"\n\udfff\t", "\n\ufffd\t"),
    ],
    ids=["cut emoji", "the wrong way round", "a whole one as well", "a half before a whole", "not escaped", "others"],
)
def test_half_a_surrogate_pair_is_read_as_unreadable(written: bytes, read: str) -> None:
    request = ChatRequest.parse(b'{"model": "m", "messages": [{"role": "user", "content": "%s"}]}' % written)
    assert request.messages[0].content == read
    assert json.loads(request.payload("x"))["messages"][0]["content"] == read


def test_what_is_wrong_beside_half_a_pair_is_still_refused() -> None:
    assert refused(b'{"a": "\\ud83d", }').code == "invalid_json"


def test_a_text_about_infinity_is_no_number() -> None:
    assert parsed(user="Infinity").fields["user"] == "Infinity"


PLACES: list[tuple[str, dict[str, Any]]] = [
    ("model", {"model": ""}),
    ("model", {"model": 3}),
    ("messages", {"messages": []}),
    ("messages", {"messages": "hello"}),
    ("messages[0]", {"messages": ["hello"]}),
    ("messages[1].role", {"messages": [*HELLO, {"role": "boss", "content": "x"}]}),
    ("messages[1].role", {"messages": [*HELLO, {"content": "x"}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": 7}]}),
    ("messages[0].content[1].type", {"messages": [{"role": "user", "content": [{"type": "text"}, {}]}]}),
    (
        "messages[0].content[0].image_url.url",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
    ),
    ("stream", {"stream": "yes"}),
    ("stream_options.include_usage", {"stream_options": {"include_usage": 1}}),
    ("tools", {"tools": {}}),
    ("response_format.type", {"response_format": {}}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_completion_tokens", {"max_completion_tokens": "5"}),
    ("metadata", {"metadata": []}),
    ("router.unknown", {"router": {"unknown": 1}}),
    ("router.task", {"router": {"task": 3}}),
    ("router.only", {"router": {"only": []}}),
]


@pytest.mark.parametrize(
    ("place", "fields"), PLACES, ids=[f"{place} {json.dumps(fields)[:40]}" for place, fields in PLACES]
)
def test_a_violation_names_its_place(place: str, fields: dict[str, Any]) -> None:
    error = refused(json.dumps({"model": "auto", "messages": HELLO, **fields}).encode())
    assert error.param == place
    assert error.message.startswith(f"{place}: ")
    assert error.code == "invalid_request"


@pytest.mark.parametrize("field", ["model", "messages"])
def test_what_is_missing_is_named(field: str) -> None:
    fields = {"model": "auto", "messages": HELLO}
    del fields[field]
    error = refused(json.dumps(fields).encode())
    assert (error.param, error.message) == (field, f"{field}: Field required.")


def test_a_content_of_the_wrong_kind_is_told_in_one_sentence() -> None:
    error = refused(b'{"model": "a", "messages": [{"role": "user", "content": 7}]}')
    assert error.message == "messages[0].content: Input should be a string or an array of content parts."


def test_a_long_key_of_the_caller_is_not_repeated_whole() -> None:
    error = refused(json.dumps({"model": "a", "messages": HELLO, "router": {"k" * 5_000: 1}}).encode())
    assert len(error.message) < 200


# --- what passes through


def test_fields_we_do_not_know_reach_the_provider_untouched() -> None:
    given: dict[str, Any] = {
        "model": "auto",
        "messages": [{**HELLO[0], "name": "x", "extra": {"a": [1, 2.5, None, "ü\n"]}}],
    }
    given |= {"temperature": 0.1, "seed": 2**62, "brand_new": {"deep": [[]]}, "stop": None}
    assert json.loads(ChatRequest.parse(json.dumps(given).encode()).payload("gpt-5")) == {**given, "model": "gpt-5"}


def test_our_own_object_stays_with_us() -> None:
    assert "router" not in json.loads(parsed(router={"task": "planning"}).payload("m"))


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        ({"stream_options": {"include_usage": False, "x": 1}}, {"include_usage": True, "x": 1}),
    ],
    ids=["none", "null", "refused"],
)
def test_usage_is_asked_for_at_a_streams_end(options: dict[str, Any], sent: dict[str, Any]) -> None:
    request = parsed(stream=True, **options)
    assert json.loads(request.payload("m", ask_usage=True))["stream_options"] == sent
    assert not request.wants_usage


def test_the_request_is_the_same_after_it_was_sent() -> None:
    request = parsed(stream=True, router={"task": "planning"})
    before = dict(request.fields)
    request.payload("m", ask_usage=True)
    assert request.fields == before


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 7, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": None}, 5),
    ],
    ids=["none", "old", "both", "null"],
)
def test_the_newer_limit_wins(fields: dict[str, Any], limit: int | None) -> None:
    assert parsed(**fields).output_limit == limit


# --- what a target must be able to do


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
NEEDS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("nothing", {}, set()),
    ("tools", {"tools": [{"type": "function"}]}, {"tools"}),
    ("no tools", {"tools": []}, set()),
    ("null tools", {"tools": None}, set()),
    ("functions", {"functions": [{"name": "f"}]}, {"tools"}),
    ("no functions", {"functions": []}, set()),
    ("a schema", {"response_format": SCHEMA}, {"json_schema"}),
    ("any JSON", {"response_format": {"type": "json_object"}}, set()),
    ("plain text", {"response_format": {"type": "text"}}, set()),
    ("text parts", message({"type": "text", "text": "x"}), set()),
    ("an image", message({"type": "text", "text": "x"}, IMAGE), {"vision"}),
    ("a sound", message({"type": "input_audio", "input_audio": {}}), {"audio"}),
    ("a spoken answer", {"modalities": ["text", "audio"]}, {"audio"}),
    ("a written answer", {"modalities": ["text"]}, set()),
    ("an unknown part", message({"type": "hologram"}), set()),
    ("no content", {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, set()),
    (
        "all",
        {"tools": [1], "response_format": SCHEMA, **message(IMAGE)},
        {"tools", "json_schema", "vision"},
    ),
]


@pytest.mark.parametrize(("fields", "needs"), [case[1:] for case in NEEDS], ids=[case[0] for case in NEEDS])
def test_what_a_request_needs(fields: dict[str, Any], needs: set[str]) -> None:
    assert parsed(**fields).needs() == needs


# --- usage


USAGES: list[tuple[str, Any, Usage | None]] = [
    ("absent", ..., None),
    ("null", None, None),
    ("plain", {"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4)),
    ("input alone", {"prompt_tokens": 3, "total_tokens": 3}, Usage(3, 0)),
    (
        "with details",
        {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
        Usage(3, 4, 2, 1),
    ),
    ("null details", {"prompt_tokens": 3, "prompt_tokens_details": None}, Usage(3)),
    ("null detail", {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}}, Usage(3)),
    ("a text", {"prompt_tokens": "3"}, None),
    ("less than nothing", {"prompt_tokens": -3}, None),
    ("a list", [], None),
]


@pytest.mark.parametrize(("given", "usage"), [case[1:] for case in USAGES], ids=[case[0] for case in USAGES])
def test_usage_is_read_or_unknown(given: Any, usage: Usage | None) -> None:
    assert usage_of({} if given is ... else {"usage": given}) == usage


def test_a_path_reads_like_code() -> None:
    assert (
        path_of(("messages", 2, "content", "part-content", 0, "image_url", "url"))
        == "messages[2].content[0].image_url.url"
    )
