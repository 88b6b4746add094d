"""The messages of a chat completions request as Anthropic's system prompt and turns.

Anthropic wants turns of user and assistant that begin with the user's, all results of tools at the start of the turn
after their calls, and no empty text. System messages from within a conversation move to its start, because only some
models take them elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from routing.errors import BadRequest
from routing.providers.anthropic_reply import THINKING

Block = dict[str, Any]
Turn = dict[str, Any]

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+);base64,(?P<data>[A-Za-z0-9+/=\s]*)", re.ASCII)
_IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_IMAGE_ALIASES = {"image/jpg": "image/jpeg"}  # by which OpenAI knows it as well
_ID_ELSEWHERE = re.compile(r"[^a-zA-Z0-9_-]")
_OPENING = "(The conversation begins with the assistant.)"
_MESSAGE_FIELDS: Mapping[str, frozenset[str]] = {
    "system": frozenset({"role", "content"}),
    "developer": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "assistant": frozenset({"role", "content", "refusal", "tool_calls", "thinking_blocks"}),
}
_PART_FIELDS = frozenset({"type", "text", "image_url", "file", "refusal", "cache_control"})


def refusal(path: str, why: str, *, code: str = "invalid_request") -> BadRequest:
    """A BadRequest that names the place in the caller's request."""
    return BadRequest(f"{path}: {why}.", param=path, code=code)


@dataclass(frozen=True, slots=True)
class Refusing:
    """Reads the members of a value at `path`. Raises BadRequest naming the path of one that is not as it must be."""

    path: str

    def text(self, value: Any, name: str) -> str:
        found = value.get(name) if isinstance(value, dict) else None
        if not isinstance(found, str):
            raise refusal(f"{self.path}.{name}", "must be a string")
        return found

    def an_object(self, value: Any, name: str) -> dict[str, Any]:
        found = self.maybe_object(value, name)
        if found is None:
            raise refusal(f"{self.path}.{name}", "must be an object")
        return found

    def maybe_object(self, value: Any, name: str) -> dict[str, Any] | None:
        found = value.get(name) if isinstance(value, dict) else None
        if not isinstance(found, dict | None):
            raise refusal(f"{self.path}.{name}", "must be an object")
        return found

    def a_list(self, value: Mapping[str, Any], name: str) -> list[Any]:
        """Empty when there is none."""
        found = value.get(name) or []
        if not isinstance(found, list):
            raise refusal(f"{self.path}.{name}", "must be an array")
        return found


@dataclass(slots=True)
class _Conversation:
    """What was read so far. `waiting` are the calls whose results must come next, with the places of the calls."""

    dropped: list[str]
    system: list[Block] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)

    def add(self, role: str, blocks: Sequence[Block]) -> None:
        """Joins the turn when it goes on, and begins one when the other side speaks."""
        if not blocks:
            return
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"].extend(blocks)
        else:
            self.turns.append({"role": role, "content": list(blocks)})


def conversation(messages: Sequence[Mapping[str, Any]], dropped: list[str]) -> tuple[str | list[Block], list[Turn]]:
    """The system prompt (empty when there is none) and the turns; what has no place is added to `dropped`.

    Raises BadRequest with the path of what cannot be said to Anthropic.
    """
    so_far = _Conversation(dropped)
    for place, message in enumerate(messages):
        path = f"messages[{place}]"
        role = message["role"]
        if role not in _READERS:
            raise refusal(f"{path}.role", f"has no counterpart in Anthropic's Messages API: {role}")
        if so_far.waiting and role != "tool":
            raise _unanswered(so_far.waiting)
        dropped.extend(f"messages[].{name}" for name, value in message.items() if value and _is_lost(name, message))
        _READERS[role](so_far, message, path)
    if so_far.waiting:
        raise _unanswered(so_far.waiting)
    return _opened(so_far)


def _is_lost(name: str, message: Mapping[str, Any]) -> bool:
    if name == "reasoning_content" and message.get("thinking_blocks"):
        return False  # the blocks hold the same text, signed
    return name not in _MESSAGE_FIELDS[message["role"]]


def _opened(read: _Conversation) -> tuple[str | list[Block], list[Turn]]:
    """Sees to it that the user begins: a lone system prompt becomes the user's, as OpenAI's models take it."""
    if not read.turns:
        if not read.system:
            raise refusal("messages", "hold no text")
        return "", [{"role": "user", "content": read.system}]
    if read.turns[0]["role"] == "assistant":
        read.turns.insert(0, {"role": "user", "content": [{"type": "text", "text": _OPENING}]})
    if any("cache_control" in block for block in read.system):
        return read.system, read.turns
    return "\n\n".join(block["text"] for block in read.system), read.turns


def _unanswered(waiting: Mapping[str, str]) -> BadRequest:
    call, path = next(iter(waiting.items()))
    return refusal(path, f"no message of role tool answers the call {call[:100]!r}")


def _read_system(so_far: _Conversation, message: Mapping[str, Any], path: str) -> None:
    so_far.system.extend(_blocks(message, path, so_far.dropped, {"text": _text_block}))


def _read_user(so_far: _Conversation, message: Mapping[str, Any], path: str) -> None:
    so_far.add("user", _blocks(message, path, so_far.dropped, _USER_PARTS))


def _read_assistant(so_far: _Conversation, message: Mapping[str, Any], path: str) -> None:
    if message.get("function_call"):
        raise refusal(f"{path}.function_call", "has no counterpart; use tool_calls", code="unsupported_parameter")
    said = _blocks(message, path, so_far.dropped, {"text": _text_block, "refusal": _refusal_block})
    if isinstance(refused := message.get("refusal"), str) and refused.strip():
        said.append({"type": "text", "text": refused})
    given = Refusing(path).a_list(message, "tool_calls")
    calls = [_call(call, f"{path}.tool_calls[{place}]") for place, call in enumerate(given)]
    so_far.waiting.update({call["id"]: f"{path}.tool_calls[{place}]" for place, call in enumerate(calls)})
    so_far.add("assistant", [*_thoughts(message, path), *said, *calls])


def _read_tool(so_far: _Conversation, message: Mapping[str, Any], path: str) -> None:
    call = _id(Refusing(path).text(message, "tool_call_id"))
    if so_far.waiting.pop(call, None) is None:
        raise refusal(f"{path}.tool_call_id", "answers no call of the assistant's message before it")
    content: str | list[Block] | None = message.get("content")
    if isinstance(content, list):
        content = _blocks(message, path, so_far.dropped, _USER_PARTS)
    result = {"type": "tool_result", "tool_use_id": call} | ({"content": content} if content else {})
    so_far.add("user", [result])


_READERS: Mapping[str, Callable[[_Conversation, Mapping[str, Any], str], None]] = {
    "system": _read_system,
    "developer": _read_system,
    "user": _read_user,
    "assistant": _read_assistant,
    "tool": _read_tool,
}


def _thoughts(message: Mapping[str, Any], path: str) -> list[Block]:
    """The thinking that came with an earlier answer, as Anthropic wrote it, for it checks the signature."""
    blocks = Refusing(path).a_list(message, "thinking_blocks")
    if not all(isinstance(block, dict) and str(block.get("type")) in THINKING for block in blocks):
        raise refusal(f"{path}.thinking_blocks", f"must be an array of blocks of type {' or '.join(sorted(THINKING))}")
    return [{name: value for name, value in block.items() if name != "index"} for block in blocks]


def _call(call: Any, path: str) -> Block:
    at, inside = Refusing(path), Refusing(f"{path}.function")
    if isinstance(call, dict) and call.get("type", "function") != "function":
        raise refusal(f"{path}.type", "must be function: Anthropic has no counterpart", code="unsupported_parameter")
    function = at.an_object(call, "function")
    try:
        arguments = from_json(inside.text(function, "arguments") or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise refusal(f"{path}.function.arguments", "must be a JSON object, as a string")
    name = inside.text(function, "name")
    return {"type": "tool_use", "id": _id(at.text(call, "id")), "name": name, "input": arguments}


def _id(given: str) -> str:
    """Ids of other providers may hold characters that Anthropic refuses."""
    return _ID_ELSEWHERE.sub("_", given) or "_"


PartReader = Callable[[Mapping[str, Any], str, list[str]], Block]


def _blocks(message: Mapping[str, Any], path: str, dropped: list[str], kinds: Mapping[str, PartReader]) -> list[Block]:
    """A message's content as blocks, without those that hold no text, which Anthropic refuses."""
    content = message.get("content") or []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    blocks = []
    for place, part in enumerate(parts):
        at = f"{path}.content[{place}]"
        if part["type"] not in kinds:
            raise refusal(f"{at}.type", f"cannot be said to Anthropic here: {part['type'][:100]}")
        block = kinds[part["type"]](part, at, dropped)
        dropped.extend(f"messages[].content[].{name}" for name in part if name not in _PART_FIELDS and part[name])
        if block["type"] != "text" or block["text"].strip():
            blocks.append(block | ({"cache_control": part["cache_control"]} if part.get("cache_control") else {}))
    return blocks


def _text_block(part: Mapping[str, Any], path: str, dropped: list[str]) -> Block:
    return {"type": "text", "text": Refusing(path).text(part, "text")}


def _refusal_block(part: Mapping[str, Any], path: str, dropped: list[str]) -> Block:
    return {"type": "text", "text": Refusing(path).text(part, "refusal")}


def _image_block(part: Mapping[str, Any], path: str, dropped: list[str]) -> Block:
    image = Refusing(path).an_object(part, "image_url")
    url = Refusing(f"{path}.image_url").text(image, "url")
    dropped.extend(
        f"messages[].content[].image_url.{name}" for name in image if name != "url" and image[name] != "auto"
    )
    if url.startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    source = _base64(url, f"{path}.image_url.url")
    source["media_type"] = _IMAGE_ALIASES.get(source["media_type"], source["media_type"])
    if source["media_type"] not in _IMAGE_TYPES:
        raise refusal(f"{path}.image_url.url", f"must be one of {', '.join(sorted(_IMAGE_TYPES))}")
    return {"type": "image", "source": source}


def _file_block(part: Mapping[str, Any], path: str, dropped: list[str]) -> Block:
    file = Refusing(path).an_object(part, "file")
    if "file_id" in file:
        raise refusal(f"{path}.file.file_id", "names a file at another provider", code="unsupported_parameter")
    source = _base64(Refusing(f"{path}.file").text(file, "file_data"), f"{path}.file.file_data")
    if source["media_type"] != "application/pdf":
        raise refusal(f"{path}.file.file_data", "must be of type application/pdf")
    title = {"title": file["filename"]} if isinstance(file.get("filename"), str) else {}
    return {"type": "document", "source": source, **title}


def _base64(url: str, path: str) -> Block:
    found = _DATA_URL.fullmatch(url)
    if found is None:
        raise refusal(path, "must be a URL, or data in base64 (data:TYPE;base64,...)")
    return {"type": "base64", "media_type": found["type"].lower(), "data": found["data"]}


_USER_PARTS: Mapping[str, PartReader] = {"text": _text_block, "image_url": _image_block, "file": _file_block}
