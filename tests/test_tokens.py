import time
import tomllib
from pathlib import Path

import pytest

from routing import tokens
from routing.tokens import estimate, estimate_messages, of_request

SAMPLES = tomllib.loads((Path(__file__).parent / "token_samples.toml").read_text(encoding="utf-8"))["sample"]
TEXT = {sample["kind"]: sample["text"] for sample in SAMPLES}
COUNTED = {sample["kind"]: sample["tokens"] for sample in SAMPLES}
HELLO = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["kind"])
def test_an_estimate_is_near_the_tokenizer(sample):
    assert estimate(sample["text"]) == pytest.approx(sample["tokens"], rel=sample["within"])


@pytest.mark.parametrize("words", ["word ", "hello world ", "test data "])
def test_a_common_word_again_and_again_is_a_token_each_time(words):
    assert estimate(words * 400) == pytest.approx(400 * len(words.split()), rel=0.1)


def test_over_all_samples_the_errors_cancel_out():
    assert sum(map(estimate, TEXT.values())) == pytest.approx(sum(COUNTED.values()), rel=0.05)


@pytest.mark.parametrize("kind", ["english prose", "python", "json", "german", "chinese", "arabic"])
def test_a_long_text_is_judged_by_its_samples(kind):
    copies = 1_000_000 // len(TEXT[kind])
    assert estimate(TEXT[kind] * copies) == pytest.approx(estimate(TEXT[kind]) * copies, rel=0.05)


def test_the_samples_of_a_long_text_see_all_its_parts():
    halves = TEXT["english prose"] * 200 + TEXT["chinese"] * 1000
    assert estimate(halves) == pytest.approx(COUNTED["english prose"] * 200 + COUNTED["chinese"] * 1000, rel=0.15)


@pytest.mark.parametrize("size", [tokens.SCANNED - 1, tokens.SCANNED, tokens.SCANNED + 1])
def test_where_sampling_begins_the_estimate_does_not_jump(size):
    text = (TEXT["english prose"] * 100)[:size]
    assert estimate(text) == pytest.approx(
        size * estimate(TEXT["english prose"]) / len(TEXT["english prose"]), rel=0.05
    )


def processor_seconds(text):
    """The least of several runs, without what others on the machine take."""
    spent = []
    for _ in range(7):
        began = time.thread_time()
        estimate(text)
        spent.append(time.thread_time() - began)
    return min(spent)


@pytest.mark.parametrize(
    ("size", "seconds"),
    [pytest.param(6_000, 1e-3, id="a usual request"), pytest.param(1_000_000, 5e-3, id="a megabyte")],
)
@pytest.mark.parametrize("kind", ["english prose", "python", "chinese", "emoji"])
def test_an_estimate_takes_no_time_to_speak_of(kind, size, seconds):
    """Five times what is measured on a quiet machine, so that only a slower method fails it."""
    assert processor_seconds((TEXT[kind] * (size // len(TEXT[kind]) + 1))[:size]) < seconds


@pytest.mark.parametrize(
    "text",
    ["\ud800", "a\udfff" * 40_000, "\x00\x01\x02", "\u202e\u200f\u200d", "\ufffd" * 30_000, " " * 50_000, "\r\n" * 9],
    ids=["half a surrogate", "many", "control", "direction marks", "replacement", "only spaces", "only breaks"],
)
def test_any_text_has_an_estimate(text):
    assert 1 <= estimate(text) <= 3 * len(text)


def test_an_empty_text_has_no_tokens():
    assert estimate("") == 0


def test_one_character_is_one_token():
    assert [estimate(character) for character in "aA. 字"] == [1] * 5


def test_longer_is_never_less():
    text = TEXT["python"]
    sizes = [estimate(text[:end]) for end in range(0, len(text), 40)]
    assert sizes == sorted(sizes)


def test_messages_cost_what_they_say_and_what_surrounds_them():
    assert estimate_messages([HELLO]) == estimate("Hello") + 4 + 3
    greeting = {"role": "user", "content": "Hello to you"}
    assert estimate_messages([greeting] * 10) == pytest.approx(
        10 * (estimate("Hello to you") + 4) + 3, abs=5
    )  # each is rounded


def test_a_name_counts():
    assert estimate_messages([{**HELLO, "name": "ada"}]) > estimate_messages([HELLO]) + 1


@pytest.mark.parametrize(
    ("detail", "more"), [("low", 85), ("high", 765), ("auto", 765), (None, 765)], ids=["low", "high", "auto", "unsaid"]
)
def test_an_image_counts_by_its_detail_and_not_by_its_bytes(detail, more):
    image = {"url": "data:image/png;base64," + "A" * 100_000} | ({"detail": detail} if detail else {})
    parts = [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": image}]
    assert estimate_messages([{"role": "user", "content": parts}]) == estimate_messages([HELLO]) + more


def test_tools_and_the_schema_of_the_answer_count():
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    plain = of_request({"messages": [HELLO]})
    assert of_request({"messages": [HELLO], "tools": [tool]}) >= plain + 15
    assert of_request({"messages": [HELLO], "functions": [tool["function"]]}) >= plain + 10
    wanted = {"type": "json_schema", "json_schema": {"name": "day", "schema": {"type": "object"}}}
    assert of_request({"messages": [HELLO], "response_format": wanted}) >= plain + 8


def test_a_call_of_a_tool_and_its_result_count():
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Hamburg"}'}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    told = {"role": "tool", "tool_call_id": "call_1", "content": "12 degrees and rain"}
    assert estimate_messages([HELLO, asked]) > estimate_messages([HELLO]) + 15
    assert estimate_messages([HELLO, asked, told]) > estimate_messages([HELLO, asked]) + 6


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": None},
        {"messages": ["text", 7, None]},
        {"messages": [{"role": "user", "content": {"no": "list"}}]},
        {"messages": [{"role": "user", "content": ["no part", {"type": "text"}, {"type": "image_url"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}], "tools": {"no": "list"}},
        {"messages": [HELLO], "response_format": "no object"},
    ],
)
def test_a_malformed_request_still_has_an_estimate(fields):
    assert of_request(fields) >= 3


def test_five_hundred_messages_are_estimated_together():
    began = time.thread_time()
    assert of_request({"messages": [HELLO] * 500}) == pytest.approx(500 * (estimate("Hello") + 4), rel=0.2)
    assert time.thread_time() - began < 0.05
