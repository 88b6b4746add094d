"""What the real Messages API refuses: what breaks the shape of a request, and the rules between its parts.

Source: the Messages API reference, November 2026. The wording of a refusal is near the real one, and nobody may rely
on it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from local.standin_anthropic_shape import CONTENT_TAGS, Countable
from local.standin_wire import Asked, Refusal

WITHOUT_SAMPLING = "2026-10-21"
VERSIONS = ("2023-01-01", "2023-06-01", WITHOUT_SAMPLING)
LARGEST_REQUEST = 32 * 1024 * 1024  # bytes
_NO_SAMPLING = re.compile(r"claude-(opus|sonnet|haiku|fable|mythos)-([5-9]|4-[78])")
_ONE_SAMPLING = re.compile(r"claude-(opus|sonnet|haiku)-4-[1-6]")
_NO_SYSTEM_TURN = re.compile(r"claude-([123]|sonnet-4|haiku-4|opus-4-[0-7])")


def signature(thinking: str) -> str:
    """What the stand-in signs a thought with, and knows it by when it comes back."""
    return base64.b64encode(hashlib.sha256(b"stand-in:" + thinking.encode()).digest()).decode()


def checked(asked: Asked, model: type[Countable]) -> Mapping[str, Any]:
    """The body of a request that keeps every rule. Raises Refusal (400, 413)."""
    if len(asked.body) > LARGEST_REQUEST:
        raise Refusal(413, "Request exceeds the maximum size", type="request_too_large")
    if asked.document is None:
        raise invalid("The request body is not valid JSON")
    request = {name: value for name, value in asked.document.items() if name != "standin"}
    try:
        model.model_validate(request)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(step) for step in first["loc"] if step not in CONTENT_TAGS)
        raise invalid(f"{path}: {first['msg']}") from None
    version = asked.headers.get("anthropic-version", "")
    for rule in (_sampling(request, version), _turns(request), _tools(request), _thinking(request), _output(request)):
        for message in rule:
            raise invalid(message)
    return request


def invalid(message: str) -> Refusal:
    """400 in this API's words."""
    return Refusal(400, message, type="invalid_request_error")


def blocks_of(content: Any) -> list[Mapping[str, Any]]:
    """A message's content as blocks."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or [])


def turns_of(request: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """(role, blocks) with messages of the same role in a row joined."""
    turns: list[tuple[str, list[Mapping[str, Any]]]] = []
    for message in request["messages"]:
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(blocks_of(message["content"]))
        else:
            turns.append((message["role"], blocks_of(message["content"])))
    return turns


def _sampling(request: Mapping[str, Any], version: str) -> Iterator[str]:
    given = [name for name in ("temperature", "top_p", "top_k") if request.get(name) is not None]
    if given and version >= WITHOUT_SAMPLING:
        yield f"{given[0]}: Extra inputs are not permitted"
    for name in given:
        if request[name] != 1 and _NO_SAMPLING.match(request["model"]):
            yield f"`{name}` is deprecated for this model."
    if {"temperature", "top_p"} <= set(given) and _ONE_SAMPLING.match(request["model"]):
        yield "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    if any(not stop.strip() for stop in request.get("stop_sequences") or ()):
        yield "stop_sequences: each stop sequence must contain non-whitespace"


_ONLY_IN = {
    "tool_use": "assistant",
    "thinking": "assistant",
    "redacted_thinking": "assistant",
    "tool_result": "user",
    "image": "user",
    "document": "user",
}


def _turns(request: Mapping[str, Any]) -> Iterator[str]:
    turns = turns_of(request)
    if turns[0][0] != "user":
        yield 'messages: first message must use the "user" role'
    if _NO_SYSTEM_TURN.match(request["model"]) and any(role == "system" for role, _ in turns):
        yield "role 'system' is not supported on this model"
    for place, (role, blocks) in enumerate(turns):
        if not blocks and place < len(turns) - 1:
            yield f"messages.{place}: all messages must have non-empty content except for the optional final assistant"
        for number, block in enumerate(blocks):
            yield from _block(role, block, f"messages.{place}.content.{number}")
        yield from _pairs(turns, place)


def _block(role: str, block: Mapping[str, Any], path: str) -> Iterator[str]:
    kind = block["type"]
    if _ONLY_IN.get(kind, role) != role:
        yield f"{path}: `{kind}` blocks are not permitted in `{role}` messages"
    if kind == "text" and not block["text"].strip():
        yield f"{path}: text content blocks must contain non-whitespace text"
    if kind == "thinking" and block["signature"] != signature(block["thinking"]):
        yield f"{path}: Invalid `signature` in `thinking` block"
    if kind == "image" and block["source"]["type"] == "base64" and not _is_base64(block["source"]["data"]):
        yield f"{path}.image.source.base64.data: invalid base64 data"


def _is_base64(data: str) -> bool:
    try:
        return bool(base64.b64decode(data, validate=True))
    except binascii.Error:
        return False


def _pairs(turns: list[tuple[str, list[Mapping[str, Any]]]], place: int) -> Iterator[str]:
    """Calls are answered in the very next turn, before anything else is said there."""
    blocks = turns[place][1]
    before = {b["id"] for b in turns[place - 1][1] if b["type"] == "tool_use"} if place else set()
    for number, block in enumerate(blocks):
        if block["type"] == "tool_result" and block["tool_use_id"] not in before:
            yield (
                f"messages.{place}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{block['tool_use_id']}. Each `tool_result` block must have a corresponding `tool_use` block in the "
                "previous message."
            )
    calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    after = turns[place + 1][1] if place + 1 < len(turns) else []
    other = next((n for n, b in enumerate(after) if b["type"] != "tool_result"), len(after))
    answered = {block["tool_use_id"] for block in after[:other]}
    if missing := [call for call in calls if call not in answered]:
        yield (
            f"messages.{place}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
            "message."
        )


def _tools(request: Mapping[str, Any]) -> Iterator[str]:
    names = [tool["name"] for tool in request.get("tools") or ()]
    choice = request.get("tool_choice")
    if len(set(names)) < len(names):
        yield "tools: Tool names must be unique."
    if choice and not names:
        yield "tool_choice: tool_choice may only be specified while providing tools"
    if choice and choice["type"] == "tool" and choice["name"] not in names:
        yield f"Tool '{choice['name']}' not found in provided tools"


def _thinking(request: Mapping[str, Any]) -> Iterator[str]:
    config = request.get("thinking") or {"type": "disabled"}
    if config["type"] not in ("enabled", "adaptive"):
        return
    if (request.get("tool_choice") or {}).get("type") in ("any", "tool"):
        yield "Thinking may not be enabled when tool_choice forces tool use."
    if config["type"] == "adaptive":
        return
    if config["budget_tokens"] >= request.get("max_tokens", config["budget_tokens"] + 1):
        yield "`max_tokens` must be greater than `thinking.budget_tokens`."
    last = next((turn for turn in reversed(turns_of(request)) if turn[0] == "assistant"), None)
    if last and any(b["type"] == "tool_use" for b in last[1]) and "thinking" not in last[1][0]["type"]:
        yield "messages: Expected `thinking` or `redacted_thinking`, but found `tool_use`."


def _output(request: Mapping[str, Any]) -> Iterator[str]:
    output_format = (request.get("output_config") or {}).get("format")
    if output_format:
        yield from _unknown(output_format["schema"], "output_config.format.schema")
    for place, tool in enumerate(request.get("tools") or ()):
        if tool.get("strict"):
            yield from _unknown(tool["input_schema"], f"tools.{place}.custom.input_schema")


_INSIDE = ("$defs", "definitions", "properties")
_KEYWORDS = frozenset(
    {"$ref", "additionalProperties", "allOf", "anyOf", "const", "description", "enum", "items", "required", "title"}
    | {"$schema", "type", *_INSIDE}
)


def _unknown(schema: Any, path: str) -> Iterator[str]:
    """What of a schema cannot be enforced."""
    if isinstance(schema, list):
        for entry in schema:
            yield from _unknown(entry, path)
    if not isinstance(schema, dict):
        return
    kind = schema.get("type")
    if "object" in (kind if isinstance(kind, list) else [kind]) and schema.get("additionalProperties") is not False:
        yield f"{path}: For 'object' type, 'additionalProperties' must be explicitly set to false"
    for keyword, value in schema.items():
        if (
            keyword not in _KEYWORDS
            and keyword != "format"
            and (keyword, value) not in (("minItems", 0), ("minItems", 1))
        ):
            yield f"{path}: For '{kind}' type, property '{keyword}' is not supported"
        if keyword in _INSIDE or keyword in ("allOf", "anyOf", "items"):
            yield from _unknown(list(value.values()) if keyword in _INSIDE else value, path)
