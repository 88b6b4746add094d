"""The input items of a Responses request as the messages of chat completions.

Source: OpenAI's reference of Responses, November 2026.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import from_json, to_json

from routing.dialects import Draft
from routing.reading import maybe, member, objects, refused

Item = Mapping[str, Any]
Part = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_SEALED = "llm-router:"  # begins the `encrypted_content` of thoughts that this router gave out


def sealed(signed: Sequence[Any]) -> str:
    """Thoughts that their provider signed, for a client to carry to the next request."""
    return _SEALED + base64.b64encode(to_json(signed)).decode()


def opened(item: Item) -> list[Any] | None:
    """The thoughts that `sealed` put into a reasoning item; None when this router did not."""
    content = item.get("encrypted_content")
    if not isinstance(content, str) or not content.startswith(_SEALED):
        return None
    try:
        found = from_json(base64.b64decode(content.removeprefix(_SEALED), validate=True))
    except ValueError:
        return []
    return found if isinstance(found, list) else []


class Items:
    """Items as they are read. What chat completions cannot say is noted in the draft.

    `continued`: the calls that results answer may be stored at the provider.
    """

    def __init__(self, draft: Draft, *, continued: bool) -> None:
        self._draft, self._continued = draft, continued
        self._messages: list[dict[str, Any]] = []
        self._waiting: dict[str, str] = {}  # calls that have no result yet, with their paths
        self._signed: list[Any] = []  # thoughts of the assistant's message to come
        self._shown: list[Part] = []  # images in results of tools, to follow the last of these

    def take_text(self, role: str, path: str, text: Any) -> None:
        """A message that is given as its text; instructions may also be items."""
        if isinstance(text, str):
            self._add({"role": role, "content": text}, path)
        else:
            self._draft.cannot_say(path)

    def take(self, item: Item, path: str) -> None:
        """The next item. Raises InvalidRequest."""
        kind = maybe(item, "type", str, path) or "message"
        if kind != "function_call_output":
            self._show()
        if kind == "message":
            self._message(item, path)
        elif kind == "function_call":
            self._call(item, path)
        elif kind == "function_call_output":
            self._output(item, path)
        elif kind == "reasoning":
            self._reasoning(item)
        elif kind == "item_reference":
            self._draft.stored = self._draft.stored or path
        else:
            self._draft.cannot_say(f"{path}.type")

    def finished(self) -> list[dict[str, Any]]:
        """All that was taken. Raises InvalidRequest when a call has no result."""
        self._show()
        for call, path in self._waiting.items():
            raise refused(path, f"no function_call_output answers the call {call[:100]!r}")
        return self._messages or [{"role": "user", "content": ""}]

    def _add(self, message: dict[str, Any], path: str) -> None:
        self._messages.append(message)
        self._draft.places.append(path)

    def _message(self, item: Item, path: str) -> None:
        role = member(item, "role", str, path)
        if role not in _ROLES:
            raise refused(f"{path}.role", f"should be one of {', '.join(_ROLES)}")
        content = item.get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(self._parts(item, path))
        if role == "assistant":
            text = "".join(part.get("text") or part.get("refusal") or "" for part in parts)
            self._add({"role": role, "content": text, **self._thoughts()}, path)
        else:
            lone = len(parts) == 1 and parts[0]["type"] == "text"
            self._add({"role": role, "content": parts[0]["text"] if lone else parts}, path)

    def _call(self, item: Item, path: str) -> None:
        """Calls belong to the assistant's message before them, or make one."""
        id_, arguments = member(item, "call_id", str, path), member(item, "arguments", str, path)
        call = {"id": id_, "type": "function"}
        function = {"name": member(item, "name", str, path), "arguments": arguments}
        last = self._messages[-1] if self._messages else {}
        if last.get("role") != "assistant" or self._signed:
            last = {"role": "assistant", "content": None, **self._thoughts()}
            self._add(last, path)
        last.setdefault("tool_calls", []).append({**call, "function": function})
        self._waiting[id_] = path

    def _output(self, item: Item, path: str) -> None:
        """A message with the result's text. Its images follow as the user's, for tools may not send any."""
        call, output = member(item, "call_id", str, path), item.get("output")
        if self._waiting.pop(call, None) is None and not self._continued:
            raise refused(f"{path}.call_id", "answers no function_call before it")
        if not isinstance(output, str):
            parts = list(self._parts(item, path, "output"))
            output = "\n".join(part["text"] for part in parts if part["type"] == "text")
            self._shown += [part for part in parts if part["type"] != "text"]
        self._add({"role": "tool", "tool_call_id": call, "content": output}, path)

    def _show(self) -> None:
        if self._shown:
            self._add({"role": "user", "content": self._shown}, self._draft.places[-1])
            self._shown = []

    def _reasoning(self, item: Item) -> None:
        signed = opened(item)
        if signed is None:
            self._draft.dropped.append("input[].reasoning")  # another's, whose seal nobody else can read
        else:
            self._signed += signed

    def _thoughts(self) -> dict[str, Any]:
        signed, self._signed = self._signed, []
        return {"thinking_blocks": signed} if signed else {}

    def _parts(self, item: Item, path: str, name: str = "content") -> Iterator[Part]:
        for part, at in objects(item, name, path):
            kind = member(part, "type", str, at)
            read = _part(kind, part, at)
            if read is None:
                self._draft.cannot_say(f"{at}.type" if kind not in _KINDS else at)
            else:
                yield read


_KINDS = ("input_text", "output_text", "text", "refusal", "input_image", "input_file", "input_audio")


def _part(kind: str, part: Item, path: str) -> Part | None:
    match kind:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": member(part, "text", str, path)}
        case "refusal":
            return {"type": "refusal", "refusal": member(part, "refusal", str, path)}
        case "input_image" if part.get("image_url"):
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": member(part, "image_url", str, path), **detail}}
        case "input_file" if part.get("file_data"):
            file = {name: part[name] for name in ("filename", "file_data") if part.get(name)}
            return {"type": "file", "file": file}
        case "input_audio" if isinstance(part.get("input_audio"), dict):
            return {"type": "input_audio", "input_audio": part["input_audio"]}
        case _:
            return None
