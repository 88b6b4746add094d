"""OpenAI's official SDK asks for responses, every kind of provider answers: the app does not notice."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from local.providers import Fault
from local.standin_responses import ENCRYPTED
from tests.routes_for import ONCE, events, heard, raw_request, read_until

PATH = "/v1/responses"
ASKED: dict[str, Any] = {"model": "chat", "input": "Hello there"}
NATIVE = {"responses": True}
KINDS = {"native": "openai", "azure": "azure_openai", "openai": "openai", "ollama": "ollama", "anthropic": "anthropic"}
TOOLS: list[Any] = [
    {
        "type": "function",
        "name": name,
        "description": "Looks it up.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    }
    for name in ("get_weather", "get_time")
]
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
AT_ONCE = 2.0


class Invoice(BaseModel):
    number: int
    lines: list[str]


def ask(stage, headers: dict[str, str] | None = None, **fields: Any):
    """One request by plain HTTP."""
    with stage.http() as client:
        return client.post(PATH, json={**ASKED, **fields}, headers=headers or {})


def sent(standin, place: int = -1) -> dict[str, Any]:
    """What the stand-in was asked, parsed."""
    return json.loads(standin.requests[place].asked.body)


def serve(stage, kind: str, *more: Any, **tables: Any):
    """A stand-in called `one`, which speaks Responses itself when the kind is `native` or `azure`."""
    one = stage.standin(KINDS[kind], "one")
    stage.serve(one, *more, providers={"one": NATIVE if kind == "native" else {}}, route={"retry": ONCE}, **tables)
    return one


@pytest.fixture(params=KINDS)
def one(request, stage):
    return serve(stage, request.param)


@pytest.fixture
def native(stage):
    return serve(stage, "native")


@pytest.fixture
def foreign(stage):
    return serve(stage, "openai")


def test_an_answer(stage, one):
    with stage.sdk() as client:
        raw = client.responses.with_raw_response.create(**ASKED, instructions="Be brief.")
    response = raw.parse()
    assert response.output_text == heard(one)
    assert (response.object, response.status) == ("response", "completed")
    assert (response.model, raw.headers["x-router-model"]) == ("model-of-one", "model-of-one")
    assert response.instructions == "Be brief."
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert raw.headers["x-router-target"] == "one"


def test_a_stream(stage, one):
    with stage.sdk() as client, client.responses.stream(**ASKED) as stream:
        told = list(stream)
        response = stream.get_final_response()
    texts = [event.delta for event in told if event.type == "response.output_text.delta"]
    assert "".join(texts) == heard(one) == response.output_text
    assert len(texts) > 2
    assert [event.type for event in told[:2]] == ["response.created", "response.in_progress"]
    assert told[-1].type == "response.completed"
    assert response.usage is not None
    assert response.usage.output_tokens > 0


def test_events_are_numbered_and_named_for_their_types(stage, one):
    text = ask(stage, stream=True).text
    told = events(text)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert names == [event["type"] for event in told]


def test_the_same_response_streamed_and_not(stage, one):
    with stage.sdk() as client:
        whole = client.responses.create(**ASKED).to_dict()
        with client.responses.stream(**ASKED) as stream:
            list(stream)
            streamed = stream.get_final_response().to_dict()
    varies = {"id", "created_at", "completed_at", "output"}
    assert {n: v for n, v in whole.items() if n not in varies} == {n: v for n, v in streamed.items() if n not in varies}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_tools_are_called_in_parallel_and_their_results_answered(stage, one, stream):
    turns: list[Any] = [{"role": "user", "content": "Use your tools"}]
    asked: dict[str, Any] = {"model": "chat", "tools": TOOLS, "reasoning": {"effort": "high"}}
    with stage.sdk() as client:
        if stream:
            with client.responses.stream(**asked, input=turns) as answered:
                list(answered)
                response: Any = answered.get_final_response()
        else:
            response = client.responses.create(**asked, input=turns)
        calls = [item for item in response.output if item.type == "function_call"]
        assert [call.name for call in calls] == ["get_weather", "get_time"]
        assert all(set(json.loads(call.arguments)) == {"city"} for call in calls)
        turns += [item.to_dict() for item in response.output]
        for item in turns:
            item.pop("parsed_arguments", None)
        turns += [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in calls]
        answer = client.responses.create(**asked, input=turns)
    assert answer.output_text.startswith("one (model-of-one) heard: sun")


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"tool_choice": "required", "parallel_tool_calls": False}, ["get_weather"]),
        ({"tool_choice": {"type": "function", "name": "get_time"}}, ["get_time"]),
        ({"tool_choice": "none", "input": "Use your tools"}, []),
    ],
    ids=["required", "one", "none"],
)
@pytest.mark.parametrize("one", [kind for kind in KINDS if kind != "ollama"], indirect=True)
def test_the_choice_of_a_tool_is_kept(stage, one, choice, names):
    with stage.sdk() as client:
        response = client.responses.create(**{**ASKED, "tools": TOOLS, **choice})
    assert [item.name for item in response.output if item.type == "function_call"] == names


def test_structured_output_is_parsed(stage, one):
    with stage.sdk() as client:
        response = client.responses.parse(**ASKED, text_format=Invoice)
        with client.responses.stream(**ASKED, text_format=Invoice) as stream:
            list(stream)
            streamed = stream.get_final_response()
    assert isinstance(response.output_parsed, Invoice)
    assert streamed.output_parsed == response.output_parsed


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_reaches_every_provider(stage, kind):
    one = serve(stage, kind, targets={"one": {"supports": ["vision"]}})
    parts = [{"type": "input_text", "text": "Hello there"}, {"type": "input_image", "image_url": PIXEL}]
    with stage.sdk() as client:
        response = client.responses.create(**{**ASKED, "input": [{"role": "user", "content": parts}]})
    assert response.output_text.endswith("Hello there")
    assert PIXEL.rpartition(",")[2] in one.requests[0].asked.body.decode()


def test_an_answer_that_was_cut_says_so(stage, one):
    with stage.sdk() as client:
        response = client.responses.create(**ASKED, max_output_tokens=2)
        with client.responses.stream(**ASKED, max_output_tokens=2) as stream:
            last = list(stream)[-1]
    assert (response.status, last.type) == ("incomplete", "response.incomplete")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (Fault("rate_limited", retry_after=5), openai.RateLimitError, 429),
        (Fault("insufficient_quota"), openai.RateLimitError, 429),
        (Fault("context_length_exceeded"), openai.BadRequestError, 400),
        (Fault("content_filter"), openai.BadRequestError, 400),
        (Fault("unauthorized"), openai.InternalServerError, 502),
        (Fault("status", status=503), openai.InternalServerError, 502),
        (Fault("invalid_json"), openai.InternalServerError, 502),
        (Fault("empty_body"), openai.InternalServerError, 502),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_errors_arrive_as_the_sdks_own(stage, one, fault, error, status):
    one.fail(fault, fault)  # a key is tried twice
    with stage.sdk() as client, pytest.raises(error) as raised:
        client.responses.create(**ASKED)
    assert raised.value.status_code == status


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kinds", [("native", "anthropic"), ("anthropic", "azure"), ("ollama", "azure")], ids="-".join)
def test_another_protocol_takes_over_whichever_it_is(stage, kinds, stream):
    second = stage.standin(KINDS[kinds[1]], "two")
    first = serve(stage, kinds[0], second)
    first.fail(Fault("error_event", after=int(kinds[0] != "ollama")) if stream else Fault("status", status=503))
    with stage.sdk() as client:
        if stream:
            with client.responses.stream(**ASKED) as answered:
                list(answered)
                text = answered.get_final_response().output_text
        else:
            text = client.responses.create(**ASKED).output_text
    assert text == heard(second)
    assert (first.asked, second.asked) == (1, 1)


@pytest.mark.parametrize("fault", ["cut", "error_event", "malformed", "unfinished"])
def test_a_failure_in_the_middle_of_a_stream_is_raised_and_ends_the_response(stage, one, fault):
    one.fail(Fault(fault, after=7), Fault(fault, after=7))
    told = events(ask(stage, stream=True).text)
    error, failed = told[-2:]
    assert (error["type"], failed["type"]) == ("error", "response.failed")
    assert failed["response"]["id"] == told[0]["response"]["id"]
    assert failed["response"]["status"] == "failed"
    assert error["delivered_tokens"] > 0
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    with stage.sdk() as client, pytest.raises(openai.APIError) as raised:
        list(client.responses.create(**ASKED, stream=True))
    assert raised.value.code in ("provider_bad_reply", "provider_unavailable")


def test_a_failure_after_an_early_200_is_raised_too(stage):
    one = stage.standin(name="one", latency=0.15, fault=Fault("status", status=503))
    stage.serve(one, server={"keepalive_seconds": 0.03}, route={"retry": ONCE})
    answer = ask(stage, stream=True)
    assert answer.text.startswith(": keep-alive")
    (error,) = events(answer.text)
    assert (error["type"], error["code"], error["sequence_number"]) == ("error", "provider_unavailable", 0)


@pytest.mark.parametrize("kind", ["native", "openai", "anthropic"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_caller_who_leaves_cancels(stage, kind, stream):
    one = serve(stage, kind)
    one.behave(fault=Fault("stall", after=6))
    body = json.dumps({**ASKED, "stream": stream}).encode()
    with stage.connection() as connection:
        connection.sendall(raw_request(body, path=PATH))
        if stream:
            read_until(connection, b"output_text.delta")
        else:
            stage.until(one, lambda it: it.running == 1)
    stage.until(one, lambda it: it.left == 1, AT_ONCE)


def test_what_openai_understands_reaches_it_untouched(stage, native):
    fields: dict[str, Any] = {
        "store": True,
        "include": ["reasoning.encrypted_content"],
        "metadata": {"team": "blue", "task_type": "Planning"},
        "tools": [*TOOLS, {"type": "web_search"}],
        "truncation": "auto",
        "text": {"verbosity": "low"},
    }
    answer = ask(stage, **fields, router={"priority": 5})
    assert sent(native) == {**ASKED, **fields, "model": "model-of-one"}
    assert "x-router-dropped" not in answer.headers
    assert answer.headers["x-router-task"] == "planning"


def test_azure_is_asked_at_its_v1_address(stage):
    one = serve(stage, "azure")
    ask(stage)
    assert one.requests[0].asked.path == "/openai/v1/responses"


@pytest.mark.parametrize(
    "settings", [{"responses": False}, {"api_version": "2024-10-21"}], ids=["switched off", "classic"]
)
def test_azure_without_responses_is_asked_in_chat(stage, settings):
    one = stage.standin("azure_openai", "one")
    stage.serve(one, providers={"one": settings})
    assert ask(stage).json()["status"] == "completed"
    assert one.requests[0].asked.path.endswith("/chat/completions")


@pytest.mark.parametrize("kind", ["native", "azure"])
def test_what_was_stored_is_continued_at_the_one_target_that_has_it(stage, kind):
    one = serve(stage, kind)
    output = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
    answer = ask(stage, previous_response_id="resp_1", input=[output])
    assert answer.status_code == 200, answer.text
    assert sent(one)["previous_response_id"] == "resp_1"


STORED: dict[str, Any] = {
    "previous_response_id": {"previous_response_id": "resp_1"},
    "conversation": {"conversation": "conv_1"},
    "input[0]": {"input": [{"type": "item_reference", "id": "msg_1"}]},
}


@pytest.mark.parametrize(("path", "fields"), STORED.items(), ids=STORED)
def test_what_was_stored_cannot_be_continued_elsewhere(stage, path, fields):
    two = stage.standin("azure_openai", "two")
    one = serve(stage, "native", two)
    answer = ask(stage, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, path)
    assert (one.asked, two.asked) == (0, 0)


def test_what_was_stored_cannot_be_continued_in_chat(stage, foreign):
    answer = ask(stage, previous_response_id="resp_1")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "previous_response_id")
    assert foreign.asked == 0


def test_answers_in_the_background_are_refused(stage, native):
    answer = ask(stage, background=True)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "background")
    assert native.asked == 0


def test_what_is_left_out_elsewhere_is_told_in_a_header(stage, foreign):
    for stream in (False, True):
        answer = ask(stage, store=True, truncation="auto", metadata={"team": "blue"}, stream=stream)
        assert answer.headers["x-router-dropped"] == "store, truncation"
    said = [{"role": "user", "content": "Hello there"}]
    assert sent(foreign, 0) == {"model": "model-of-one", "messages": said, "stream": False}
    assert '"store":false' in answer.text
    assert '"metadata":{"team":"blue"}' in answer.text


SEARCH = {"type": "web_search"}


def test_what_only_responses_can_do_goes_only_to_who_speaks_it(stage):
    two = stage.standin("azure_openai", "two")
    one = serve(stage, "openai", two)
    ask(stage, tools=[SEARCH])
    assert (one.asked, two.asked) == (0, 1)


def test_what_no_target_can_do_is_refused_by_name(stage, foreign):
    with stage.sdk() as client, pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**ASKED, tools=[SEARCH])
    assert (refused.value.param, refused.value.code) == ("tools[0].type", "unsupported_parameter")
    assert foreign.asked == 0


def test_thoughts_of_anthropic_come_back_to_it(stage):
    one = serve(stage, "anthropic")
    one.behave(reasoning_tokens=5)
    turns: list[Any] = [{"role": "user", "content": "Use your tools"}]
    with stage.sdk() as client:
        response = client.responses.create(model="chat", input=turns, tools=TOOLS)
        assert response.output[0].type == "reasoning"
        assert response.output[0].summary[0].text
        turns += [item.to_dict() for item in response.output]
        turns += [
            {"type": "function_call_output", "call_id": item.call_id, "output": "sun"}
            for item in response.output
            if item.type == "function_call"
        ]
        client.responses.create(model="chat", input=turns, tools=TOOLS)
    blocks = sent(one)["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "tool_use", "tool_use"]
    assert blocks[0]["signature"]


def test_thoughts_go_to_nobody_who_could_not_read_them(stage):
    """Another's are taken out and named where they are translated, and this router's where they are not."""
    theirs = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": ENCRYPTED}
    ours = {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "llm-router:W10="}
    given = [theirs, ours, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hello there"}]
    one = serve(stage, "openai")
    assert ask(stage, input=given).headers["x-router-dropped"] == "input[].reasoning"
    assert sent(one)["messages"] == [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hello there"}]
    one = serve(stage, "native")
    assert ask(stage, input=given).status_code == 200
    assert sent(one)["input"] == [theirs, *given[2:]]


CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
BAD: dict[str, tuple[Any, str]] = {
    "missing": (None, "input"),
    "number": (1, "input"),
    "role": ([{"role": "robot", "content": "x"}], "input[0].role"),
    "item": (["x"], "input[0]"),
    "content": ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
    "no call": ([{"type": "function_call_output", "call_id": "c", "output": "x"}], "input[0].call_id"),
    "no result": ([CALL, {"role": "user", "content": "x"}], "input[0]"),
    "no name": ([{**CALL, "name": None}], "input[0].name"),
}


@pytest.mark.parametrize(("given", "path"), BAD.values(), ids=BAD)
def test_a_bad_request_is_refused_at_its_place_before_anybody_is_asked(stage, foreign, given, path):
    answer = ask(stage, input=given)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, path)
    assert foreign.asked == 0


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "other"}}, "tool_choice.name"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"router": {"wish": 1}}, "router.wish"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_contradictory_fields_are_refused_at_their_place(stage, foreign, fields, path):
    answer = ask(stage, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, path)
    assert foreign.asked == 0


def test_a_ceiling_of_the_request_is_kept_in_its_own_protocol(stage):
    for kind, name in (("native", "max_output_tokens"), ("openai", "max_completion_tokens")):
        one = serve(stage, kind, targets={"one": {"price": {"input": 1.0, "output": 100.0}}})
        answer = ask(stage, router={"max_cost_usd": 0.04})
        assert sent(one)[name] == int(answer.headers["x-router-max-tokens"]) < 500


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_decision_tells_the_usage(stage, kind, stream):
    one = serve(stage, kind)
    one.behave(reasoning_tokens=7)
    answer = ask(stage, stream=stream)
    with stage.http() as client:
        usage = client.get(f"/v1/router/decisions/{answer.headers['x-router-decision-id']}").json()["usage"]
    assert usage["estimated"] is False
    assert usage["output"] > 7


def test_what_a_target_lacks_is_told_by_its_place_in_the_request_as_it_came(stage, foreign):
    image = {"role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}
    for stream in (False, True):
        answer = ask(stage, instructions="Be brief.", input=[{"role": "user", "content": "Hi"}, image], stream=stream)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[1]")
    assert foreign.asked == 0


def test_what_anthropic_has_no_place_for_is_told_by_its_own_name(stage):
    one = serve(stage, "anthropic")
    schema = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}}
    wanted = {"verbosity": "low", "format": {"type": "json_schema", "name": "x", "schema": schema}}
    answer = ask(stage, text=wanted, temperature=0.5)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-router-dropped"] == "text.format.schema.minimum, temperature, text.verbosity"
    assert one.asked == 1
