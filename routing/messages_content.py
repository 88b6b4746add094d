"""The conversation of a Messages request as the messages of chat completions.

Source: the Messages API reference, November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic_core import to_json

from routing.dialects import Draft
from routing.reading import maybe, member, objects, refused

Block = Mapping[str, Any]
Message = dict[str, Any]
Part = dict[str, Any]

# The signature of thoughts that another provider had: this router alone knows it, and takes them out again.
UNSIGNED = "not-signed-by-anthropic"
THINKING = frozenset({"thinking", "redacted_thinking"})
_FIELDS = frozenset({"type", "text", "source", "tool_use_id", "content", "is_error", "id", "name", "input", "title"})


class Turns:
    """Messages as they are read. What chat completions cannot say is noted in the draft."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._messages: list[Message] = []
        self._waiting: dict[str, str] = {}  # calls whose results must come next, with their paths

    def system(self, fields: Mapping[str, Any]) -> None:
        """The system prompt of the request."""
        self._add_system(self._texts(fields, "system", ""), "system")

    def take(self, message: Mapping[str, Any], path: str) -> None:
        """The next message. Raises InvalidRequest."""
        if message["role"] == "assistant":
            self._answered()
            self._assistant(message, path)
        elif message["role"] == "system":
            self._add_system(self._texts(message, "content", path), path)
        else:
            self._user(message, path)

    def finished(self) -> list[Message]:
        """All that was taken. Raises InvalidRequest when a call has no result."""
        self._answered()
        return self._messages or [{"role": "user", "content": ""}]

    def _add(self, message: Message, path: str) -> None:
        self._messages.append(message)
        self._draft.places.append(path)

    def _add_system(self, texts: list[str], path: str) -> None:
        if texts:
            self._add({"role": "system", "content": "\n\n".join(texts)}, path)

    def _answered(self) -> None:
        for call, path in self._waiting.items():
            raise refused(path, f"no tool_result in the next message answers the call {call[:100]!r}")

    def _assistant(self, message: Mapping[str, Any], path: str) -> None:
        texts, calls = [], []
        for block, at in self._blocks(message, path):
            kind = member(block, "type", str, at)
            if kind == "text":
                texts.append(member(block, "text", str, at))
            elif kind == "tool_use":
                calls.append(_call(block, at))
                self._waiting[calls[-1]["id"]] = at
            elif kind in THINKING:
                self._draft.dropped += [] if block.get("signature") == UNSIGNED else [f"messages[].content[].{kind}"]
            else:
                self._draft.cannot_say(f"{at}.type")
        said: Message = {"role": "assistant", "content": "".join(texts) or ("" if not calls else None)}
        self._add(said | ({"tool_calls": calls} if calls else {}), path)

    def _user(self, message: Mapping[str, Any], path: str) -> None:
        """The results of tools come first, as Anthropic wants them, and become messages of their own."""
        parts: list[Part] = []
        for block, at in self._blocks(message, path):
            if member(block, "type", str, at) == "tool_result":
                parts.extend(self._result(block, at))
            else:
                parts.extend(self._parts(block, at))
        self._answered()
        if parts:
            lone = len(parts) == 1 and parts[0]["type"] == "text"
            self._add({"role": "user", "content": parts[0]["text"] if lone else parts}, path)

    def _result(self, block: Block, path: str) -> Iterator[Part]:
        """A message with the result's text. Its images follow as the user's, for tools may not send any."""
        call = member(block, "tool_use_id", str, path)
        if self._waiting.pop(call, None) is None:
            raise refused(f"{path}.tool_use_id", "answers no call of the assistant's message before it")
        parts = [part for inner, at in self._blocks(block, path) for part in self._parts(inner, at)]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        if block.get("is_error"):
            text = f"Error: {text}"
        self._add({"role": "tool", "tool_call_id": call, "content": text}, path)
        yield from (part for part in parts if part["type"] != "text")

    def _blocks(self, holder: Mapping[str, Any], path: str) -> Iterator[tuple[Block, str]]:
        """A text is one block. Fields that have no counterpart are noted."""
        content = holder.get("content")
        if isinstance(content, str):
            yield {"type": "text", "text": content}, f"{path}.content"
            return
        for block, at in objects(holder, "content", path):
            if block.get("type") not in THINKING:
                names = [name for name, value in block.items() if name not in _FIELDS and value is not None]
                self._draft.dropped.extend(f"messages[].content[].{name}" for name in names)
            yield block, at

    def _texts(self, holder: Mapping[str, Any], name: str, path: str) -> list[str]:
        if isinstance(holder.get(name), str):
            return [holder[name]]
        texts = []
        for block, at in objects(holder, name, path):
            texts.append(member(block, "text", str, at))
            self._draft.dropped.extend([f"{name}[].cache_control"] if block.get("cache_control") else [])
        return texts

    def _parts(self, block: Block, path: str) -> Iterator[Part]:
        reader = _PARTS.get(member(block, "type", str, path))
        part = reader(block, path) if reader else None
        if part is None:
            self._draft.cannot_say(f"{path}.type" if reader is None else f"{path}.source")
        else:
            yield part


def _call(block: Block, path: str) -> dict[str, Any]:
    arguments = to_json(member(block, "input", dict, path)).decode()
    function = {"name": member(block, "name", str, path), "arguments": arguments}
    return {"id": member(block, "id", str, path), "type": "function", "function": function}


def _text(block: Block, path: str) -> Part | None:
    return {"type": "text", "text": member(block, "text", str, path)}


def _image(block: Block, path: str) -> Part | None:
    source = member(block, "source", dict, path)
    match source.get("type"):
        case "base64":
            return {"type": "image_url", "image_url": {"url": _data_url(source, f"{path}.source")}}
        case "url":
            return {"type": "image_url", "image_url": {"url": member(source, "url", str, f"{path}.source")}}
        case _:
            return None  # a file that the provider stores


def _document(block: Block, path: str) -> Part | None:
    source = member(block, "source", dict, path)
    match source.get("type"):
        case "base64":
            name = maybe(block, "title", str, path) or "document.pdf"
            return {"type": "file", "file": {"filename": name, "file_data": _data_url(source, f"{path}.source")}}
        case "text":
            return {"type": "text", "text": member(source, "data", str, f"{path}.source")}
        case _:
            return None


def _data_url(source: Block, path: str) -> str:
    return f"data:{member(source, 'media_type', str, path)};base64,{member(source, 'data', str, path)}"


_PARTS: Mapping[str, Callable[[Block, str], Part | None]] = {"text": _text, "image": _image, "document": _document}
