"""The stand-in for Responses refuses what the real endpoint refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.standin_responses_request import responses_request
from local.standin_wire import Asked, Refusal

ASKED: dict[str, Any] = {"model": "m", "input": "Hi"}
REFUSED: dict[str, tuple[dict[str, Any], str | None]] = {
    "unknown parameter": ({"max_tokens": 5}, "max_tokens"),
    "no input": ({"input": None}, "input"),
    "unknown response": ({"previous_response_id": "x"}, "previous_response_id"),
    "unknown tool": ({"tools": [{"type": "odd"}]}, "tools[0]"),
    "nameless tool": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
    "unknown item": ({"input": [{"type": "odd"}]}, "input[0]"),
    "foreign thought": ({"input": [{"type": "reasoning", "encrypted_content": "llm"}]}, None),
    "result without call": ({"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}, "input"),
}


def asked(document: dict[str, Any]) -> Asked:
    return Asked(1, "one", "POST", "/v1/responses", body=json.dumps(document).encode(), document=document)


def test_a_good_request_passes():
    assert responses_request(asked(ASKED)) == ASKED


@pytest.mark.parametrize(("fields", "param"), REFUSED.values(), ids=REFUSED)
def test_a_bad_request_is_refused_at_its_place(fields, param):
    with pytest.raises(Refusal) as refused:
        responses_request(asked({**ASKED, **fields}))
    assert (refused.value.status, refused.value.param) == (400, param)
