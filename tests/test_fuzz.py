"""Anything at all into what reads callers' bodies, routes files and providers' words: a value, or the right error."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import to_json

from routing import config
from routing.errors import InvalidRequest, Misconfigured, ProviderError
from routing.providers.base import Chunk
from routing.providers.classify import error_object, from_error_in_reply, from_status
from routing.providers.http import Http, retry_after
from routing.providers.openai import OpenAIStream, _completion
from routing.types import Usage
from routing.wire import ChatRequest, usage_of

ANYTHING = settings(deadline=None, derandomize=True)  # the same examples in every run
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.just(10**40)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "boss"])
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "image_url", "input_audio", "x"]) | JSON,
        "image_url": JSON,
        "text": JSON,
    },
)
MESSAGES = st.fixed_dictionaries(
    {}, optional={"role": ROLES | JSON, "content": st.text(max_size=5) | st.lists(PARTS, max_size=2) | JSON}
)
HINTS = st.fixed_dictionaries({}, optional={"task": st.text(max_size=5) | JSON, "only": JSON, "deny": JSON, "x": JSON})
REQUESTS = st.fixed_dictionaries(
    {"model": st.text(max_size=4) | JSON, "messages": st.lists(MESSAGES, max_size=3) | JSON},
    optional={
        name: JSON
        for name in ("stream", "stream_options", "tools", "functions", "modalities", "response_format", "metadata", "n")
    }
    | {"max_tokens": st.integers(-1, 9) | JSON, "router": HINTS | JSON},
)


def check_refusal(refused: InvalidRequest) -> None:
    assert refused.status == 400
    assert len(json.dumps(refused.body())) < 2_000


def check_request(body: bytes) -> None:
    try:
        request = ChatRequest.parse(body)
    except InvalidRequest as refused:
        check_refusal(refused)
        return
    request.needs()
    sent = json.loads(request.payload("m", ask_usage=True), parse_constant=pytest.fail)
    expected = {**json.loads(body), "model": "m", "stream_options": sent["stream_options"]}
    expected.pop("router", None)
    assert sent == expected


@ANYTHING
@given(st.binary(max_size=80))
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 10_000)
@example(b'{"model": "m", "messages": [{"role": "user"}], "n": ' + b"9" * 5_000 + b"}")
def test_any_bytes_are_a_request_or_a_refusal(body: bytes) -> None:
    check_request(body)


@ANYTHING
@given(JSON)
def test_any_json_is_a_request_or_a_refusal(document: Any) -> None:
    check_request(json.dumps(document).encode())


@ANYTHING
@given(REQUESTS)
@example({"model": "m", "messages": [{"role": "user"}], "user": "Infinity"})
@example({"model": "m", "messages": [{"role": "user"}], "router": {"text-content": 1}})
@example({"model": "m", "messages": [{"role": "user"}], "modalities": [[]]})
@example({"model": "m", "messages": [{"role": "user"}], "metadata": {"a": 10**40}})
def test_anything_like_a_request_is_one_or_refused(document: dict[str, Any]) -> None:
    check_request(json.dumps(document).encode())


@pytest.mark.parametrize("number", ["1e400", "-1e999", "9" * 400 + ".0"], ids=["large", "small", "long"])
def test_a_number_that_would_become_infinity_is_refused(number: str) -> None:
    body = '{"model": "m", "messages": [{"role": "user"}], "x": {"y": [%s]}}' % number  # noqa: UP031
    with pytest.raises(InvalidRequest):
        ChatRequest.parse(body.encode())


KEYS = st.sampled_from(
    [
        *("server", "breaker", "health", "providers", "targets", "routes", "aliases", "callers", "a", "p", "type"),
        *("key", "provider", "model", "context", "supports", "price", "quality", "tasks", "planning", "retry"),
        *("base_url", "endpoint", "deadline_seconds", "strategy", "[key]", "", "a b"),
    ]
)
TOML_VALUES = st.one_of(
    st.sampled_from(['"a"', '"p"', '"openai"', '"azure_openai"', '"env:K"', '"task"', '["a"]', '["a", "a"]', "[[]]"]),
    st.sampled_from(["true", "inf", "nan", "-1", "1979-05-27", "07:32:00", "{ a = 1 }", "{}", "[{}]", '"x'])
    | st.integers().map(str)
    | st.text(max_size=4).map(json.dumps),
)
NAMED = st.lists(KEYS.map(json.dumps), min_size=1, max_size=4).map(".".join)
LINES = st.one_of(
    NAMED.map(lambda name: f"[{name}]"),
    st.tuples(NAMED, TOML_VALUES).map(" = ".join),
    st.text(max_size=10),
)


def check_routes(text: str) -> None:
    try:
        config.parse(text, {"K": "not an address"})
        told: tuple[str, ...] = ("nothing: is wrong",)
    except Misconfigured as refused:
        told = refused.errors
    assert told
    assert all(": " in line and "pydantic" not in line for line in told), told


@ANYTHING
@given(st.text(max_size=60) | st.lists(LINES, max_size=8).map("\n".join))
@example("a = " + "[" * 5_000)
@example("a = " + "9" * 5_000)
@example("providers = 3")
@example('"[key]" = 1')
@example('[providers]\n"" = {}')
@example("[routes.a]\ntargets = [{}, [], 1979-05-27]\ntasks = { planning = [[]] }")
@example("[targets.a]\nprovider = []\nbreaker = 3")
@example("[providers.a]\ntype = []")
@example('[providers.a]\ntype = "openai"\nbase_url = "env:"')
@example("[callers]\na.key = 3\nb.key = 3")
@example('[aliases]\n"text-content" = "x"')
def test_any_text_is_a_routes_file_or_refused(text: str) -> None:
    check_routes(text)


def documents(depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    values = st.sampled_from(["a", "p", "openai", "env:K", 1, -1, 0.5, True, ["a"], [{}], float("nan"), float("inf")])
    inner = values if depth == 0 else values | documents(depth - 1)
    return st.dictionaries(KEYS, inner, max_size=4)


@ANYTHING
@given(documents())
def test_any_tables_are_a_routes_file_or_refused(document: dict[str, Any]) -> None:
    text = toml_of(document)
    assert tomllib.loads(text).keys() == document.keys()
    check_routes(text)


def toml_of(document: dict[str, Any]) -> str:
    return "\n".join(f"{json.dumps(key)} = {toml_value(value)}" for key, value in document.items())


def toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value) if isinstance(value, str) else str(value).lower()


# --- what providers say


WORDS = ["error", "code", "type", "message", "innererror", "choices", "delta", "index", "finish_reason", "usage"]
CODES = st.sampled_from(["429", "content_filter", "insufficient_quota", "²²²", "9" * 5_000, 429, 4.5, True])
SAID: st.SearchStrategy[Any] = st.recursive(
    JSON | CODES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=10,
)
ERRORS = st.dictionaries(st.sampled_from(WORDS), SAID, max_size=5)


@ANYTHING
@given(st.binary(max_size=60) | SAID.map(to_json))
def test_any_body_holds_an_error_object_or_none(body: bytes) -> None:
    assert isinstance(error_object(body), dict)


@ANYTHING
@given(st.integers(100, 999), ERRORS)
@example(400, {"code": [], "type": {}})
@example(400, {"innererror": []})
def test_any_refusal_has_a_class(status: int, error: dict[str, Any]) -> None:
    found = from_status(status, error)
    assert isinstance(found, ProviderError)
    assert 400 <= found.status < 600
    assert isinstance(found.message, str)


@ANYTHING
@given(ERRORS)
@example({"code": "²"})
@example({"code": "9" * 5_000})
@example({"code": True})
def test_any_error_inside_a_reply_has_a_class(error: dict[str, Any]) -> None:
    assert isinstance(from_error_in_reply(error), ProviderError)


@ANYTHING
@given(st.binary(max_size=60) | SAID.map(to_json))
def test_any_reply_is_read_or_refused(body: bytes) -> None:
    try:
        fields = _completion(body)
    except ProviderError:
        return
    assert usage_of(fields) is None or isinstance(usage_of(fields), Usage)


class Played(Http):
    """Plays pieces in place of a connection."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self._pieces = pieces

    async def pieces(self, response: httpx.Response) -> Any:
        for piece in self._pieces:
            yield piece


async def heard(pieces: list[bytes]) -> list[Chunk]:
    stream = OpenAIStream(Played(pieces), httpx.Response(200), hide_usage=True)
    return [chunk async for chunk in stream]


def drained(work: Any) -> Any:
    """Runs a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


EVENTS = SAID.map(lambda said: b"data: " + to_json(said) + b"\n\n") | st.sampled_from(
    [b"data: [DONE]\n\n", b": x\n\n", b"data:\n\n", b"\xff", b"data: {\n\n"]
)


@ANYTHING
@given(st.lists(EVENTS | st.binary(max_size=20), max_size=6))
@example([b'data: {"choices":[{"index":[],"delta":{"content":"x"}}]}\n\n'])
@example([b'data: {"choices":[{"index":{},"finish_reason":"stop"}]}\n\n'])
@example([b"data: [DONE]\n\n"])
def test_any_stream_ends_well_or_in_a_provider_error(pieces: list[bytes]) -> None:
    try:
        chunks = drained(heard(pieces))
    except ProviderError:
        return
    assert any(chunk.meaningful for chunk in chunks)
    assert b"".join(chunk.data for chunk in chunks).endswith(b"data: [DONE]\n\n")


@ANYTHING
@given(
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text("0123456789.-+eE nGMT,:abJ"))
)
@example({"retry-after": "Wed, 21 Oct 2015 07:28:00 -0000", "date": "Wed, 21 Oct 2015 07:28:00 GMT"})
@example({"retry-after": "nan"})
@example({"retry-after": "1e999"})
@example({"retry-after": "-5"})
def test_any_retry_after_is_seconds_or_unknown(headers: dict[str, str]) -> None:
    seconds = retry_after(httpx.Headers(headers))
    assert seconds is None or 0 <= seconds < float("inf")
