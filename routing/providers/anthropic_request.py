"""A chat completions request as a Messages request.

Every field of a request stands in one of the tables below: carried over, refused by name because an answer without it
would not be what was asked for, or left out and reported because it only nudges the answer. A field in none of them is
left out and reported too. Sources: OpenAI's reference of chat completions and Anthropic's of Messages, November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from routing.providers.anthropic_messages import Refusing, conversation, refusal
from routing.providers.anthropic_schema import Schemas
from routing.types import Target
from routing.wire import ChatRequest

Fields = Mapping[str, Any]

# Field -> the values that ask for nothing. `null` always asks for nothing.
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),  # the ancestor of tool_choice; its answers have another shape
    "functions": ([],),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "top_logprobs": (0,),
    "web_search_options": (),
}
LEFT_OUT: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "metadata": ({},),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "seed": (),
    "store": (False,),
    "verbosity": ("medium",),
}
CARRIED = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "model",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "service_tier",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    }
)
NATIVE = frozenset({"cache_control", "inference_geo", "thinking"})  # Anthropic's own, for callers who know them
_DEALT_WITH = CARRIED | NATIVE | REFUSED.keys() | {"router", "top_k"}  # the router's hints; top_k goes with temperature

_EFFORT = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_SERVICE_TIER = {"auto": "auto", "default": "standard_only"}
_UNFIT = re.compile(r"[^A-Za-z0-9_.\[\]-]")
_LONGEST_NAME, _MOST_NAMES = 64, 32  # so that a header holds them
_JSON_ONLY = "Answer with one JSON object and nothing else: no text around it and no code fence."


@dataclass(frozen=True, slots=True)
class Options:
    """What a provider's settings say about the translation."""

    default_max_tokens: int
    sampling: bool  # whether temperature, top_p and top_k are handed on


@dataclass(slots=True)
class Draft:
    """A Messages request in the making, and the names of what has no place in it."""

    body: dict[str, Any]
    dropped: list[str] = field(default_factory=list)


def messages_request(target: Target, request: ChatRequest, options: Options) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body without `stream`, and the fields left out. Raises BadRequest naming the path of what is refused."""
    fields = {name: value for name, value in request.fields.items() if value is not None}
    for place in unsayable(fields):
        raise refusal(place, "has no counterpart in Anthropic's Messages API", code="unsupported_parameter")
    draft = Draft({"model": target.model})
    _max_tokens(draft, target, request, options)
    system, draft.body["messages"] = conversation(fields["messages"], draft.dropped)
    if system:
        draft.body["system"] = system
    for carry in _STEPS:
        carry(draft, fields)
    _sampling(draft, fields, options)
    draft.body |= {name: fields[name] for name in NATIVE if name in fields}
    draft.dropped.extend(_left_out(fields))
    return draft.body, _told(draft.dropped)


def unsayable(fields: Fields) -> Iterator[str]:
    """The places of what another target may take and Anthropic does not, without which the answer would be another."""
    for name, harmless in REFUSED.items():
        if fields.get(name) is not None and fields[name] not in harmless:
            yield name
    for place, tool in enumerate(_listed(fields.get("tools"))):
        if isinstance(tool, dict) and isinstance(tool.get("type"), str) and tool["type"] != "function":
            yield f"tools[{place}].type"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _told(dropped: list[str]) -> tuple[str, ...]:
    """Each name once, fit for a header: callers choose the names of fields that nobody knows."""
    names = list(dict.fromkeys(_UNFIT.sub("?", name[:_LONGEST_NAME]) for name in dropped))
    return tuple(names[:_MOST_NAMES] + (["..."] if len(names) > _MOST_NAMES else []))


def _left_out(fields: Fields) -> Iterator[str]:
    for name, value in fields.items():
        if name not in _DEALT_WITH and value not in LEFT_OUT.get(name, ()):
            yield name


def _max_tokens(draft: Draft, target: Target, request: ChatRequest, options: Options) -> None:
    """The caller's limit, lowered (and reported) where the target can do less; else the target's, or the default."""
    asked, most = request.output_limit, target.max_output
    if asked and most and asked > most:
        draft.dropped.append("max_completion_tokens" if request.max_completion_tokens else "max_tokens")
        asked = most
    draft.body["max_tokens"] = asked or most or options.default_max_tokens


def _sampling(draft: Draft, fields: Fields, options: Options) -> None:
    """OpenAI's temperature goes to 2, Anthropic's to 1; beside a temperature models since Claude 4.5 take no top_p."""
    temperature, top_p = (_number(fields, name) for name in ("temperature", "top_p"))
    asked = {"temperature": temperature, "top_p": top_p, "top_k": fields.get("top_k")}
    wanted = {name: value for name, value in asked.items() if value is not None and (value != 1 or name == "top_k")}
    if not options.sampling:
        draft.dropped.extend(wanted)
        return
    if "temperature" in wanted and wanted.pop("top_p", None) is not None:
        draft.dropped.append("top_p")
    if wanted.get("temperature", 0) > 1:
        wanted["temperature"] = 1
        draft.dropped.append("temperature")
    draft.body |= wanted


def _number(fields: Fields, name: str) -> float | None:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise refusal(name, "must be a number")
    return value


def _stop(draft: Draft, fields: Fields) -> None:
    """Anthropic refuses a stop sequence of nothing but white space."""
    given = fields.get("stop", [])
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise refusal("stop", "must be a string or an array of strings")
    visible = [stop for stop in stops if stop.strip()]
    if len(visible) < len(stops):
        draft.dropped.append("stop")
    if visible:
        draft.body["stop_sequences"] = visible


def _user(draft: Draft, fields: Fields) -> None:
    """Both of OpenAI's names for the end user mean Anthropic's one; the newer name wins."""
    named = {name: fields[name] for name in ("safety_identifier", "user") if name in fields}
    if named:
        draft.body["metadata"] = {"user_id": next(iter(named.values()))}
    if len(set(map(str, named.values()))) > 1:
        draft.dropped.append("user")


def _service_tier(draft: Draft, fields: Fields) -> None:
    asked = fields.get("service_tier")
    if isinstance(asked, str) and asked in _SERVICE_TIER:
        draft.body["service_tier"] = _SERVICE_TIER[asked]
    elif asked is not None:
        draft.dropped.append("service_tier")


def _stream_options(draft: Draft, fields: Fields) -> None:
    """Usage is ours to tell; obfuscation would have to be the provider's."""
    options = fields.get("stream_options") or {}
    draft.dropped.extend(f"stream_options.{name}" for name in options if name != "include_usage" and options[name])


def _tools(draft: Draft, fields: Fields) -> None:
    tools = [_tool(tool, f"tools[{place}]", draft) for place, tool in enumerate(fields.get("tools") or [])]
    if not tools:
        if fields.get("tool_choice", "none") not in ("none", "auto"):
            raise refusal("tool_choice", "asks for a tool, and there are no tools")
        return
    choice, allowed = _tool_choice(fields.get("tool_choice", "auto"), {tool["name"] for tool in tools})
    if fields.get("parallel_tool_calls") is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    draft.body["tools"] = [tool for tool in tools if tool["name"] in allowed]
    if choice != {"type": "auto"}:
        draft.body["tool_choice"] = choice


def _tool(tool: Any, path: str, draft: Draft) -> dict[str, Any]:
    at = Refusing(path)
    at.text(tool, "type")  # it is "function": `unsayable` has none of the others
    function = at.an_object(tool, "function")
    inside = Refusing(f"{path}.function")
    schema = {"type": "object", "properties": {}, **(inside.maybe_object(function, "parameters") or {})}
    if function.get("strict"):
        schema = Schemas("tools[].function.parameters", draft.dropped).known(schema, f"{path}.function.parameters")
    result: dict[str, Any] = {"name": inside.text(function, "name"), "input_schema": schema}
    result |= {name: function[name] for name in ("description", "strict") if function.get(name)}
    result |= {"cache_control": tool["cache_control"]} if "cache_control" in tool else {}
    known = {"name", "parameters", "description", "strict"}
    draft.dropped.extend(f"tools[].function.{name}" for name in function if name not in known)
    return result


def _tool_choice(choice: Any, names: set[str]) -> tuple[dict[str, Any], set[str]]:
    """Anthropic's choice, and the names of the tools it is among."""
    plain = {"auto": "auto", "none": "none", "required": "any"}
    if isinstance(choice, str) and choice in plain:
        return {"type": plain[choice]}, names
    at = Refusing("tool_choice")
    match choice.get("type") if isinstance(choice, dict) else None:
        case "function":
            name = Refusing("tool_choice.function").text(at.an_object(choice, "function"), "name")
            return {"type": "tool", "name": _known(name, names)}, names
        case "allowed_tools":
            given = at.an_object(choice, "allowed_tools")
            mode = "any" if given.get("mode") == "required" else "auto"
            among = Refusing("tool_choice.allowed_tools").a_list(given, "tools")
            return {"type": mode}, {_known(_allowed_name(tool), names) for tool in among}
        case _:
            raise refusal("tool_choice", "must be none, auto, required, one function, or allowed_tools")


def _allowed_name(tool: Any) -> str:
    at = Refusing("tool_choice.allowed_tools.tools")
    return at.text(at.an_object(tool, "function"), "name")


def _known(name: str, names: set[str]) -> str:
    if name not in names:
        raise refusal("tool_choice", f"names {name[:100]!r}, which is not among the tools")
    return name


def _response_format(draft: Draft, fields: Fields) -> None:
    """A schema is enforced. `json_object`, which Anthropic has not, becomes an instruction, and is reported."""
    asked = fields.get("response_format") or {"type": "text"}
    match asked.get("type"):
        case "text":
            pass
        case "json_schema":
            given = Refusing("response_format").an_object(asked, "json_schema")
            output = {"format": {"type": "json_schema", "schema": _output_schema(given, draft)}}
            draft.body.setdefault("output_config", {}).update(output)
        case "json_object":
            _instruct(draft, _JSON_ONLY)
            draft.dropped.append("response_format")
        case _:
            raise refusal("response_format.type", "must be text, json_object or json_schema")


def _output_schema(given: Mapping[str, Any], draft: Draft) -> dict[str, Any]:
    """The schema, carrying the name and the description that OpenAI has beside it."""
    path = "response_format.json_schema"
    labels = {"title": given.get("name"), "description": given.get("description")}
    schema = Refusing(path).an_object(given, "schema")
    known = Schemas(f"{path}.schema", draft.dropped).known(schema, f"{path}.schema")
    return {name: text for name, text in labels.items() if text} | known


def _instruct(draft: Draft, instruction: str) -> None:
    system = draft.body.get("system", "")
    if isinstance(system, str):
        draft.body["system"] = f"{system}\n\n{instruction}".strip()
    else:
        draft.body["system"] = [*system, {"type": "text", "text": instruction}]


def _reasoning_effort(draft: Draft, fields: Fields) -> None:
    """Effort asks for thinking, unless the caller configured that, or forces a tool, which excludes thinking."""
    effort = fields.get("reasoning_effort")
    if effort is None:
        return
    if effort == "none":
        draft.body["thinking"] = {"type": "disabled"}
    elif isinstance(effort, str) and effort in _EFFORT:
        draft.body.setdefault("output_config", {})["effort"] = _EFFORT[effort]
        if draft.body.get("tool_choice", {}).get("type") not in ("any", "tool"):
            draft.body["thinking"] = {"type": "adaptive"}
    else:
        raise refusal("reasoning_effort", f"must be none, {', '.join(_EFFORT)}")


_STEPS: tuple[Callable[[Draft, Fields], None], ...] = (
    _stop,
    _user,
    _service_tier,
    _stream_options,
    _tools,
    _response_format,
    _reasoning_effort,
)
