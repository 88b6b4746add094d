"""What a real Responses endpoint refuses, and the request as the chat request a stand-in knows how to answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from local.standin_requests import json_object
from local.standin_wire import Asked, Refusal

_NAMES = """
background conversation context_management include input instructions max_output_tokens max_tool_calls metadata model
moderation parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention
reasoning safety_identifier service_tier standin store stream stream_options temperature text tool_choice tools
top_logprobs top_p truncation user
"""
_KNOWN = frozenset(_NAMES.split())
_ITEMS = frozenset({"message", "function_call", "function_call_output", "reasoning", "web_search_call"})
_TOOLS = frozenset({"function", "web_search", "file_search", "mcp", "code_interpreter", "custom"})


def responses_request(asked: Asked) -> Mapping[str, Any]:
    """The body of a request. Raises Refusal (400)."""
    request = json_object(asked)
    for name in request:
        if name not in _KNOWN:
            raise Refusal(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    if not isinstance(request.get("input"), str | list):
        raise _missing("input")
    previous = request.get("previous_response_id")
    if previous is not None and not str(previous).startswith("resp_"):
        message = f"Previous response with id '{previous}' not found."
        raise Refusal(400, message, param="previous_response_id", code="previous_response_not_found")
    _check_tools(request)
    _check_items(request)
    return request


def _check_tools(request: Mapping[str, Any]) -> None:
    for place, tool in enumerate(request.get("tools") or ()):
        if tool.get("type") not in _TOOLS:
            raise Refusal(400, f"Invalid value: '{tool.get('type')}'.", param=f"tools[{place}]", code="invalid_value")
        if tool["type"] == "function" and not isinstance(tool.get("name"), str):
            raise _missing(f"tools[{place}].name")


def _check_items(request: Mapping[str, Any]) -> None:
    calls: set[str] = set()
    stored = bool(request.get("previous_response_id"))
    for place, item in enumerate(_items(request)):
        kind = item.get("type", "message")
        if kind not in _ITEMS:
            raise Refusal(400, f"Invalid value: '{kind}'.", param=f"input[{place}]", code="invalid_value")
        if kind == "reasoning" and not str(item.get("encrypted_content", "gAAAA")).startswith("gAAAA"):
            raise Refusal(400, "The encrypted content could not be verified.", code="invalid_encrypted_content")
        if kind == "function_call":
            calls.add(item["call_id"])
        elif kind == "function_call_output" and not stored and item.get("call_id") not in calls:
            message = f"No tool call found for function call output with call_id {item.get('call_id')}."
            raise Refusal(400, message, param="input")


def _missing(param: str) -> Refusal:
    return Refusal(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def as_chat(request: Mapping[str, Any]) -> dict[str, Any]:
    """The chat request that says the same, as far as a stand-in listens."""
    system = [{"role": "system", "content": request["instructions"]}] if request.get("instructions") else []
    messages = [message for item in _items(request) for message in _messages(item)]
    tools = [
        {"type": "function", "function": {"name": tool["name"], "parameters": tool.get("parameters") or {}}}
        for tool in request.get("tools") or ()
        if tool["type"] == "function"
    ]
    chat: dict[str, Any] = {"messages": [*system, *messages], "tools": tools}
    choice = request.get("tool_choice", "auto")
    chat["tool_choice"] = {"function": choice} if isinstance(choice, dict) else choice
    chat["parallel_tool_calls"] = request.get("parallel_tool_calls", True)
    chat["max_completion_tokens"] = request.get("max_output_tokens")
    wanted = (request.get("text") or {}).get("format") or {"type": "text"}
    if wanted["type"] == "json_schema":
        chat["response_format"] = {"type": "json_schema", "json_schema": {"schema": wanted["schema"]}}
    elif wanted["type"] == "json_object":
        chat["response_format"] = wanted
    return chat


def _items(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = request["input"]
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


def _messages(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    kind = item.get("type", "message")
    if kind == "message":
        yield {"role": item["role"], "content": item["content"]}
    elif kind == "function_call_output":
        yield {"role": "tool", "content": item["output"]}
