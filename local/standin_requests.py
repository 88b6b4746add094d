"""What a real OpenAI endpoint refuses: checks of a request's body, each with the place it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.standin_wire import Asked, Refusal

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_NUMBERS: tuple[tuple[str, float, float, bool], ...] = (  # field, lowest, highest, whole
    ("temperature", 0, 2, False),
    ("top_p", 0, 1, False),
    ("presence_penalty", -2, 2, False),
    ("frequency_penalty", -2, 2, False),
    ("n", 1, 128, True),
    ("max_tokens", 1, 1_000_000, True),
    ("max_completion_tokens", 1, 1_000_000, True),
)


def chat_request(asked: Asked) -> Mapping[str, Any]:
    """The body of a chat request. Raises Refusal (400)."""
    request = json_object(asked)
    _check_messages(request)
    for name, low, high, whole in _NUMBERS:
        _check_number(request, name, low, high, whole)
    _check_stream(request)
    _check_tools(request)
    _check_format(request.get("response_format"))
    return request


def completion_request(asked: Asked) -> tuple[Mapping[str, Any], list[str]]:
    """The body of a text completion request and its prompts as texts. Raises Refusal (400)."""
    request = json_object(asked)
    prompts = _texts(request, "prompt")
    for name in ("n", "max_tokens"):
        _check_number(request, name, 0, 1_000_000, whole=True)
    _check_stream(request)
    return request, [prompt if isinstance(prompt, str) else " ".join(map(str, prompt)) for prompt in prompts]


def _texts(request: Mapping[str, Any], name: str) -> list[Any]:
    """One text or several, each a string or a list of tokens. Raises Refusal (400)."""
    given = request.get(name)
    if isinstance(given, str) or (isinstance(given, list) and given and all(isinstance(n, int) for n in given)):
        given = [given]
    if not isinstance(given, list) or not given or not all(isinstance(entry, str | list) and entry for entry in given):
        raise Refusal(400, f"'$.{name}' is invalid: a text, or a list of texts or of tokens, is needed.", param=name)
    return given


def embedding_request(asked: Asked) -> tuple[Mapping[str, Any], list[Any]]:
    """The body of an embedding request and its inputs as a list. Raises Refusal (400)."""
    request = json_object(asked)
    given = _texts(request, "input")
    _check_number(request, "dimensions", 1, 10_000, whole=True)
    if request.get("encoding_format", "float") not in ("float", "base64"):
        raise _invalid("encoding_format", "'float' or 'base64'")
    return request, given


def json_object(asked: Asked) -> Mapping[str, Any]:
    """The body as a JSON object. Raises Refusal (400)."""
    if asked.document is None:
        raise Refusal(400, "We could not parse the JSON body of your request: a JSON object is expected.")
    return asked.document


def _check_messages(request: Mapping[str, Any]) -> None:
    messages = request.get("messages")
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list):
        raise _invalid("messages", "an array of objects")
    if not messages:
        raise Refusal(400, "Invalid 'messages': empty array.", param="messages", code="empty_array")
    for place, message in enumerate(messages):
        _check_message(message, f"messages[{place}]", after_call=place > 0 and _follows_a_call(messages[place - 1]))


def _check_message(message: object, where: str, *, after_call: bool) -> None:
    if not isinstance(message, dict):
        raise _invalid(where, "an object")
    role, content = message.get("role"), message.get("content")
    if role is None:
        raise _missing(f"{where}.role")
    if role not in _ROLES:
        raise Refusal(
            400,
            f"Invalid value: '{role}'. Supported: {', '.join(_ROLES)}.",
            param=f"{where}.role",
            code="invalid_value",
        )
    if content is None and not (role == "assistant" and (message.get("tool_calls") or message.get("refusal"))):
        raise _invalid(f"{where}.content", "a string or an array of parts")
    if content is not None and not isinstance(content, str | list):
        raise _invalid(f"{where}.content", "a string or an array of parts")
    if role == "tool":
        _check_tool_message(message, where, after_call)


def _check_tool_message(message: Mapping[str, Any], where: str, after_call: bool) -> None:
    if not isinstance(message.get("tool_call_id"), str):
        raise _missing(f"{where}.tool_call_id")
    if not after_call:
        raise Refusal(400, "A message with role 'tool' must follow a message with 'tool_calls'.", param=f"{where}.role")


def _follows_a_call(previous: object) -> bool:
    return isinstance(previous, dict) and (previous.get("role") == "tool" or bool(previous.get("tool_calls")))


def _check_number(request: Mapping[str, Any], name: str, low: float, high: float, whole: bool) -> None:
    value = request.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise _invalid(name, "an integer" if whole else "a number")
    if not low <= value <= high:
        code = "integer_below_min_value" if whole and value < low else "decimal_out_of_range"
        raise Refusal(400, f"Invalid '{name}': expected {low} to {high}, got {value}.", param=name, code=code)


def _check_stream(request: Mapping[str, Any]) -> None:
    stream, options = request.get("stream"), request.get("stream_options")
    if not isinstance(stream, bool | None):
        raise _invalid("stream", "a boolean")
    if options is None:
        return
    if not isinstance(options, dict):
        raise _invalid("stream_options", "an object")
    if not stream:
        raise Refusal(400, "'stream_options' is only allowed when 'stream' is enabled.", param="stream_options")


def _check_tools(request: Mapping[str, Any]) -> None:
    tools = request.get("tools")
    if tools is None:
        if request.get("tool_choice", "none") != "none":
            raise Refusal(400, "'tool_choice' is only allowed when 'tools' are specified.", param="tool_choice")
        return
    if not isinstance(tools, list) or not tools:
        raise _invalid("tools", "an array of at least one tool")
    for place, tool in enumerate(tools):
        _check_tool(tool, f"tools[{place}]")


def _check_tool(tool: object, where: str) -> None:
    if not isinstance(tool, dict):
        raise _invalid(where, "an object")
    if not isinstance(tool.get("type"), str):
        raise _missing(f"{where}.type")
    function = tool.get("function")
    if tool["type"] == "function" and not (isinstance(function, dict) and isinstance(function.get("name"), str)):
        raise _missing(f"{where}.function.name")


def _check_format(asked: object) -> None:
    if asked is None:
        return
    if not isinstance(asked, dict) or asked.get("type") not in ("text", "json_object", "json_schema"):
        raise _invalid("response_format", "an object of type text, json_object or json_schema")
    if asked["type"] != "json_schema":
        return
    described = asked.get("json_schema")
    if not isinstance(described, dict) or not isinstance(described.get("name"), str):
        raise _missing("response_format.json_schema.name")
    if not isinstance(described.get("schema", {}), dict):
        raise _invalid("response_format.json_schema.schema", "a JSON Schema object")


def _missing(param: str) -> Refusal:
    return Refusal(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _invalid(param: str, expected: str) -> Refusal:
    return Refusal(400, f"Invalid type for '{param}': expected {expected}.", param=param, code="invalid_type")
