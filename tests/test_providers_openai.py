"""OpenAI's protocol and Azure's: real error bodies, and real connections to stand-ins that go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from local.providers import BLOCK_PROMPT, Fault, StandIn, serve
from routing.errors import (
    BadReply,
    BadRequest,
    ContentRefused,
    ContextTooLong,
    NotFound,
    ProviderError,
    QuotaExhausted,
    Throttled,
    Unauthorized,
    Unavailable,
)
from routing.providers import azure_openai, ollama, openai
from routing.providers.azure_openai import AzureOpenAISettings
from routing.providers.base import Chunk, KeyCredential, NoCredential, Provider
from routing.providers.classify import error_object, from_error_in_reply, from_status
from routing.providers.http import retry_after
from routing.providers.ollama import OllamaSettings
from routing.providers.openai import OpenAISettings
from routing.types import Target
from routing.wire import ChatRequest

TARGET = Target("t", "p", "gpt-5")

# --- real error bodies: status, body, class, and the status and code for the caller

AZURE_FILTER = {
    "error": {
        "inner_error": None,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {
                "hate": {"filtered": False, "severity": "safe"},
                "jailbreak": {"filtered": False, "detected": False},
                "violence": {"filtered": True, "severity": "medium"},
            },
        },
        "code": "content_filter",
        "message": "The response was filtered due to the prompt triggering a content management policy.",
        "param": "prompt",
        "type": None,
        "status": 400,
    }
}


def error(code: Any = None, kind: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": "words", "type": kind, "param": None, "code": code, **more}}


ANSWERS: list[tuple[str, int, Any, type[ProviderError], int, str | None]] = [
    ("azure content filter", 400, AZURE_FILTER, ContentRefused, 400, "content_filter"),
    (
        "azure content filter, inner code alone",
        400,
        error(innererror={"code": "ContentFiltered"}),
        ContentRefused,
        400,
        "content_filter",
    ),
    ("openai image policy", 400, error("content_policy_violation"), ContentRefused, 400, "content_filter"),
    (
        "openai context",
        400,
        error("context_length_exceeded", "invalid_request_error"),
        ContextTooLong,
        400,
        "context_length_exceeded",
    ),
    ("openai bad field", 400, error("unsupported_value", "invalid_request_error"), BadRequest, 400, None),
    ("unprocessable", 422, {"detail": [{"loc": ["body"], "msg": "x"}]}, BadRequest, 422, None),
    ("too large", 413, error(), BadRequest, 413, None),
    ("a wrong address", 405, error(), NotFound, 502, "provider_model_not_found"),
    ("a retired model", 410, error("ModelDeprecated"), NotFound, 502, "provider_model_not_found"),
    ("deepseek's empty purse", 402, error("invalid_request_error"), QuotaExhausted, 429, "insufficient_quota"),
    ("azure's failed dependency", 424, error(), Unavailable, 502, "provider_unavailable"),
    ("too early", 425, error(), Unavailable, 502, "provider_unavailable"),
    ("groq without room", 498, error(), Unavailable, 502, "provider_unavailable"),
    ("too much in the headers", 431, error(), BadRequest, 400, None),
    ("vllm without a wrapper", 400, {"object": "error", "message": "words", "code": 400}, BadRequest, 400, None),
    ("openai key", 401, error("invalid_api_key"), Unauthorized, 502, "provider_unauthorized"),
    ("azure key", 401, error("401"), Unauthorized, 502, "provider_unauthorized"),
    ("azure gateway", 401, {"statusCode": 401, "message": "x"}, Unauthorized, 502, "provider_unauthorized"),
    ("azure network", 403, error("403"), Unauthorized, 502, "provider_unauthorized"),
    ("openai model", 404, error("model_not_found"), NotFound, 502, "provider_model_not_found"),
    ("azure deployment", 404, error("DeploymentNotFound"), NotFound, 502, "provider_model_not_found"),
    ("ollama model", 404, {"error": "model 'x' not found"}, NotFound, 502, "provider_model_not_found"),
    ("openai rate", 429, error("rate_limit_exceeded", "tokens"), Throttled, 429, "rate_limit_exceeded"),
    ("azure rate", 429, error("429"), Throttled, 429, "rate_limit_exceeded"),
    ("rate without a word", 429, None, Throttled, 429, "rate_limit_exceeded"),
    ("openai quota", 429, error("insufficient_quota", "insufficient_quota"), QuotaExhausted, 429, "insufficient_quota"),
    ("quota by type alone", 429, error(None, "insufficient_quota"), QuotaExhausted, 429, "insufficient_quota"),
    ("openai hard limit", 429, error("billing_hard_limit_reached"), QuotaExhausted, 429, "insufficient_quota"),
    ("openai account", 429, error("billing_not_active"), QuotaExhausted, 429, "insufficient_quota"),
    ("timeout of theirs", 408, error("timeout"), Unavailable, 502, "provider_unavailable"),
    ("conflict", 409, error(), Unavailable, 502, "provider_unavailable"),
    ("openai server", 500, error("server_error", "server_error"), Unavailable, 502, "provider_unavailable"),
    ("gateway's page", 502, b"<html><h1>Bad Gateway</h1></html>", Unavailable, 502, "provider_unavailable"),
    ("overloaded", 503, b"", Unavailable, 502, "provider_unavailable"),
    ("anthropic's overload", 529, error(None, "overloaded_error"), Unavailable, 502, "provider_unavailable"),
    ("a redirect", 302, b"", BadReply, 502, "provider_bad_reply"),
    ("nothing to say", 204, b"", BadReply, 502, "provider_bad_reply"),
    ("not UTF-8", 400, b'{"error": {"message": "\xff"}}', BadRequest, 400, None),
    ("a list", 400, [1], BadRequest, 400, None),
]


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "told", "code"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS]
)
def test_a_real_error_body_becomes(
    status: int, body: Any, kind: type[ProviderError], told: int, code: str | None
) -> None:
    found = from_status(status, error_object(encoded(body)))
    assert type(found) is kind
    assert (found.status, found.code) == (told, code)


def test_the_filters_findings_reach_the_caller() -> None:
    found = from_status(400, error_object(encoded(AZURE_FILTER)))
    assert found.body()["error"] == {**AZURE_FILTER["error"]}


@pytest.mark.parametrize("status", [401, 404, 429, 500], ids=str)
def test_what_is_not_about_the_callers_request_is_not_repeated(status: int) -> None:
    found = from_status(status, error_object(encoded(error("x", message="key sk-1 of org-2"))))
    assert "sk-1" not in str(found.body())


INSIDE: list[tuple[str, dict[str, Any], type[ProviderError]]] = [
    ("a status", {"code": 429}, Throttled),
    ("a status as text", {"code": "503"}, Unavailable),
    ("another number", {"code": 7}, Unavailable),
    ("a quota", {"code": "insufficient_quota"}, QuotaExhausted),
    ("a filter", {"code": "content_filter"}, ContentRefused),
    ("a context", {"code": "context_length_exceeded"}, ContextTooLong),
    ("a type", {"type": "invalid_request_error"}, BadRequest),
    ("our key", {"type": "authentication_error"}, Unauthorized),
    ("nothing known", {"message": "x"}, Unavailable),
    ("nothing", {}, Unavailable),
]


@pytest.mark.parametrize(("given", "kind"), [case[1:] for case in INSIDE], ids=[case[0] for case in INSIDE])
def test_an_error_inside_a_200_becomes(given: dict[str, Any], kind: type[ProviderError]) -> None:
    assert type(from_error_in_reply(given)) is kind


# --- real connections


class Keys:
    """What a credential reads, and how often anew."""

    def __init__(self, *keys: str) -> None:
        self.keys, self.fresh = list(keys), 0

    async def __call__(self, fresh: bool) -> str:
        if fresh:
            self.fresh += 1
            self.keys.pop(0)
        return self.keys[0]


def provider_for(url: str, keys: Keys | None = None) -> Provider:
    settings = OpenAISettings.model_validate({"type": "openai", "base_url": url})
    return openai.build("p", settings, KeyCredential(*openai.KEY_HEADER, keys or Keys("sk-1")))


def asking(text: str = "hello", **fields: Any) -> ChatRequest:
    return ChatRequest.parse(
        json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}], **fields}).encode()
    )


@asynccontextmanager
async def closing(provider: Provider) -> AsyncIterator[Provider]:
    try:
        yield provider
    finally:
        await provider.aclose()


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with serve("openai") as running:
        yield running


@pytest.fixture
async def provider(standin: StandIn) -> AsyncIterator[Provider]:
    async with closing(provider_for(standin.url)) as built:
        yield built


async def streamed(provider: Provider, request: ChatRequest) -> list[Chunk]:
    stream = await provider.stream(TARGET, request)
    try:
        return [chunk async for chunk in stream]
    finally:
        await stream.aclose()


def events(chunks: list[Chunk]) -> list[Any]:
    whole = b"".join(chunk.data for chunk in chunks)
    return [json.loads(line[6:]) for line in whole.split(b"\n\n") if line and line != b"data: [DONE]"]


async def test_a_reply_is_handed_on_as_it_came(provider: Provider, standin: StandIn) -> None:
    reply = await provider.chat(TARGET, asking(temperature=0.5))
    fields = json.loads(reply.body)
    assert fields["choices"][0]["message"]["content"] == "openai (gpt-5) heard: hello"
    assert reply.usage is not None
    assert (reply.usage.input, reply.model) == (fields["usage"]["prompt_tokens"], "gpt-5")
    assert reply.headers["x-upstream-request-id"].startswith("req_")
    (record,) = standin.requests
    assert record.asked.headers["authorization"] == "Bearer sk-1"
    assert record.asked.document == {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.5,
    }


async def test_a_stream_ends_with_done_and_hides_the_usage_that_only_we_asked_for(provider: Provider) -> None:
    chunks = await streamed(provider, asking(stream=True))
    assert b"".join(chunk.data for chunk in chunks).endswith(b"data: [DONE]\n\n")
    assert all(event["choices"] for event in events(chunks))
    assert [chunk.usage for chunk in chunks if chunk.usage]
    assert any(chunk.meaningful for chunk in chunks)


async def test_a_stream_shows_the_usage_that_was_asked_for(provider: Provider) -> None:
    chunks = await streamed(provider, asking(stream=True, stream_options={"include_usage": True}))
    (last,) = [event for event in events(chunks) if not event["choices"]]
    assert last["usage"]["prompt_tokens"] > 0


async def test_every_choice_has_to_finish(provider: Provider) -> None:
    chunks = await streamed(provider, asking(stream=True, n=2))
    finished = [choice["index"] for event in events(chunks) for choice in event["choices"] if choice["finish_reason"]]
    assert finished == [0, 1]


async def test_tool_calls_are_meaningful(provider: Provider) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    chunks = await streamed(provider, asking("use the tool", stream=True, tools=[tool]))
    assert any(chunk.meaningful for chunk in chunks)


FAULTS: list[tuple[Fault, type[ProviderError]]] = [
    (Fault("status", status=500), Unavailable),
    (Fault("status", status=503), Unavailable),
    (Fault("status", status=529), Unavailable),
    (Fault("status", status=404), NotFound),
    (Fault("rate_limited"), Throttled),
    (Fault("insufficient_quota"), QuotaExhausted),
    (Fault("unauthorized"), Unauthorized),
    (Fault("content_filter"), ContentRefused),
    (Fault("context_length_exceeded"), ContextTooLong),
    (Fault("drop"), Unavailable),
]
IN_ONE_PIECE = [
    *FAULTS,
    (Fault("cut"), BadReply),
    (Fault("reset"), BadReply),
    (Fault("invalid_json"), BadReply),
    (Fault("empty_body"), BadReply),
]
IN_A_STREAM = [
    *FAULTS,
    (Fault("empty_stream"), BadReply),
    (Fault("error_event"), Unavailable),
    (Fault("error_event", code="content_filter"), ContentRefused),
    *((Fault(kind, after=after), BadReply) for kind in ("cut", "reset", "malformed") for after in (0, 1, 3)),
    (Fault("unfinished"), BadReply),
    (Fault("error_event", after=3), Unavailable),
]


def named(fault: Any) -> str:
    return f"{fault.kind}-{fault.after or fault.status}" if isinstance(fault, Fault) else fault.__name__


@pytest.mark.parametrize(("fault", "kind"), IN_ONE_PIECE, ids=named)
async def test_a_reply_that_goes_wrong_raises(
    provider: Provider, standin: StandIn, fault: Fault, kind: type[ProviderError]
) -> None:
    standin.fail(fault)
    with pytest.raises(ProviderError) as caught:
        await provider.chat(TARGET, asking())
    assert type(caught.value) is kind


@pytest.mark.parametrize(("fault", "kind"), IN_A_STREAM, ids=named)
async def test_a_stream_that_goes_wrong_raises(
    provider: Provider, standin: StandIn, fault: Fault, kind: type[ProviderError]
) -> None:
    standin.fail(fault)
    with pytest.raises(ProviderError) as caught:
        await streamed(provider, asking(stream=True))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        (Fault("rate_limited", retry_after=7), 7.0),
        (Fault("rate_limited", retry_after_ms=250), 0.25),
        (Fault("rate_limited", retry_after=7, retry_after_ms=250), 0.25),
        (Fault("rate_limited"), None),
    ],
    ids=["seconds", "milliseconds", "both", "neither"],
)
async def test_the_wait_a_provider_asks_for_is_read(
    provider: Provider, standin: StandIn, fault: Fault, seconds: float | None
) -> None:
    standin.fail(fault)
    with pytest.raises(Throttled) as caught:
        await provider.chat(TARGET, asking())
    assert caught.value.retry_after == seconds


DATE = "Fri, 27 Nov 2026 08:00:00 GMT"
LATER = "Fri, 27 Nov 2026 08:00:09 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": LATER, "date": DATE}, 9.0),
        ({"retry-after": DATE, "date": LATER}, 0.0),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "-1", "retry-after": "3"}, 3.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": LATER, "date": "today"}, None),
        ({"retry-after": "Fri, 99 Nov 2026 08:00:09 GMT", "date": DATE}, None),
    ],
    ids=str,
)
def test_a_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx.Headers(headers)) == seconds


def test_a_date_to_wait_for_is_read_by_our_clock_where_the_provider_shows_none() -> None:
    day = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    assert retry_after(httpx.Headers({"retry-after": day})) == pytest.approx(86_400, abs=600)


async def test_a_refused_key_is_read_anew_before_the_next_call(standin: StandIn) -> None:
    standin.behave(keys=("sk-2",))
    keys = Keys("sk-1", "sk-2")
    async with closing(provider_for(standin.url, keys)) as provider:
        with pytest.raises(Unauthorized):
            await provider.chat(TARGET, asking())
        assert keys.fresh == 0
        await provider.chat(TARGET, asking())
        await provider.chat(TARGET, asking())
    assert keys.fresh == 1


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with serve("openai") as gone:
        url = gone.url
    async with closing(provider_for(url)) as provider:
        with pytest.raises(Unavailable, match="could not be reached"):
            await provider.chat(TARGET, asking())


async def test_a_caller_who_leaves_ends_the_call(provider: Provider, standin: StandIn) -> None:
    standin.fail(Fault("hang"))
    call = asyncio.create_task(provider.chat(TARGET, asking()))
    await standin.until(lambda it: it.running == 1)
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    await standin.until(lambda it: it.left == 1)


# --- answers that no stand-in gives: a server that says what it is told


@asynccontextmanager
async def saying(status: str, body: bytes, kind: str = "text/event-stream", **headers: str) -> AsyncIterator[Provider]:
    head = [f"HTTP/1.1 {status}", f"content-type: {kind}", "connection: close"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in request.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, closing(provider_for(f"http://127.0.0.1:{port}/v1")) as provider:
        yield provider


def event(**choice: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


HELLO = event(index=0, delta={"content": "hello"})
STOP = event(index=0, delta={}, finish_reason="stop")
DONE = b"data: [DONE]\n\n"

STREAMS = [
    ("plain", HELLO + STOP + DONE, HELLO + STOP + DONE),
    ("no DONE", HELLO + STOP, HELLO + STOP + DONE),
    ("no last blank line", HELLO + STOP + b"data: [DONE]", HELLO + STOP + DONE),
    ("comments are dropped", b": x\n\n" + HELLO + b": y\n\n" + STOP + DONE, HELLO + STOP + DONE),
    ("empty data is dropped", HELLO + b"data:\n\n" + STOP + DONE, HELLO + STOP + DONE),
    ("nothing after DONE", HELLO + STOP + DONE + HELLO, HELLO + STOP + DONE),
    ("a mark in front", b"\xef\xbb\xbf" + HELLO + STOP + DONE, HELLO + STOP + DONE),
    ("CRLF", (HELLO + STOP).replace(b"\n", b"\r\n") + DONE, (HELLO + STOP).replace(b"\n", b"\r\n") + DONE),
    ("no words, but a finish", STOP + DONE, STOP + DONE),
    ("no number", event(delta={"content": "x"}) + STOP + DONE, event(delta={"content": "x"}) + STOP + DONE),
]


@pytest.mark.parametrize(("sent", "handed_on"), [case[1:] for case in STREAMS], ids=[case[0] for case in STREAMS])
async def test_a_stream_is_handed_on(sent: bytes, handed_on: bytes) -> None:
    async with saying("200 OK", sent) as provider:
        chunks = await streamed(provider, asking(stream=True))
    assert b"".join(chunk.data for chunk in chunks) == handed_on


BROKEN = [
    ("DONE without a finish", HELLO + DONE),
    ("DONE alone", DONE),
    ("one choice of two unfinished", HELLO + event(index=1, delta={"content": "x"}) + STOP + DONE),
    ("a choice that is no object", HELLO + b'data: {"choices": [7]}\n\n' + STOP + DONE),
    ("a choice with an odd number", HELLO + event(index=[], delta={"content": "x"}) + STOP + DONE),
    ("half an event", HELLO + b'data: {"choices"'),
    ("not JSON", HELLO + b"data: hello\n\n" + STOP + DONE),
    ("a list", HELLO + b"data: []\n\n" + STOP + DONE),
]


@pytest.mark.parametrize("sent", [case[1] for case in BROKEN], ids=[case[0] for case in BROKEN])
async def test_a_broken_stream_never_ends_like_a_whole_one(sent: bytes) -> None:
    heard: list[Chunk] = []

    async def listening(provider: Provider) -> None:
        stream = await provider.stream(TARGET, asking(stream=True))
        try:
            async for chunk in stream:
                heard.append(chunk)
        finally:
            await stream.aclose()

    async with saying("200 OK", sent) as provider:
        with pytest.raises(BadReply):
            await listening(provider)
    assert b"[DONE]" not in b"".join(chunk.data for chunk in heard)
    assert all(chunk.data in sent for chunk in heard)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (encoded(error("rate_limit_exceeded")), Throttled),
        (b'{"choices": [{"message": {"content": "x"}}]}', BadReply),
        (b"<html>", BadReply),
    ],
    ids=["an error", "an answer in one piece", "a page"],
)
async def test_a_stream_that_is_none_says_why(body: bytes, kind: type[ProviderError]) -> None:
    async with saying("200 OK", body, "application/json") as provider:
        with pytest.raises(kind):
            await provider.stream(TARGET, asking(stream=True))


WHOLE: list[tuple[str, str, bytes, Mapping[str, str], type[ProviderError]]] = [
    ("a page", "200 OK", b"<html>sign in</html>", {}, BadReply),
    ("an error", "200 OK", encoded(error("rate_limit_exceeded")), {}, Throttled),
    ("a text as error", "200 OK", b'{"error": "boom"}', {}, Unavailable),
    ("no choices", "200 OK", b'{"choices": []}', {}, BadReply),
    ("a redirect", "307 Temporary Redirect", b"", {"location": "http://127.0.0.1:9/"}, BadReply),
    ("a page with a 503", "503 Service Unavailable", b"<html>", {}, Unavailable),
    ("a cut refusal", "401 Unauthorized", b'{"err', {"content_length": "500"}, Unauthorized),
    ("a cut throttle", "429 Too Many Requests", b'{"err', {"content_length": "500"}, Throttled),
    ("a cut answer", "200 OK", b'{"cho', {"content_length": "500"}, BadReply),
]


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind"), [case[1:] for case in WHOLE], ids=[case[0] for case in WHOLE]
)
async def test_an_odd_reply_raises(
    status: str, body: bytes, headers: Mapping[str, str], kind: type[ProviderError]
) -> None:
    async with saying(status, body, "application/json", **headers) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.chat(TARGET, asking())
    assert type(caught.value) is kind


# --- Azure and Ollama, as differences


@pytest.mark.parametrize(
    ("version", "path", "query"),
    [
        (None, "/openai/v1/chat/completions", {}),
        ("2024-10-21", "/openai/deployments/gpt-5/chat/completions", {"api-version": "2024-10-21"}),
    ],
    ids=["v1", "classic"],
)
async def test_azure_is_asked_at_its_own_address(version: str | None, path: str, query: dict[str, str]) -> None:
    async with serve("azure_openai") as standin:
        settings = AzureOpenAISettings.model_validate(
            {"type": "azure_openai", "endpoint": standin.url, "api_version": version, "key": "env:K"}
        )
        credential = KeyCredential(*azure_openai.KEY_HEADER, Keys("sk-1"))
        async with closing(azure_openai.build("p", settings, credential)) as provider:
            await provider.chat(TARGET, asking())
            chunks = await streamed(provider, asking(stream=True))
            with pytest.raises(ContentRefused) as caught:
                await provider.chat(TARGET, asking(BLOCK_PROMPT))
        asked = standin.requests[0].asked
    assert (asked.path, dict(asked.query), asked.headers["api-key"]) == (path, query, "sk-1")
    assert events(chunks)[0]["choices"] == []
    assert caught.value.body()["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"


async def test_ollama_needs_no_key() -> None:
    async with serve("ollama") as standin:
        settings = OllamaSettings.model_validate({"type": "ollama", "endpoint": standin.url})
        async with closing(ollama.build("p", settings, NoCredential())) as provider:
            reply = await provider.chat(TARGET, asking())
        (record,) = standin.requests
    assert record.asked.path == "/v1/chat/completions"
    assert "authorization" not in record.asked.headers
    assert reply.usage is not None
