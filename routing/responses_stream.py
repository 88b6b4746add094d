"""Chat completion chunks as the events of Responses, and a watch over events that a provider sends itself.

Source: OpenAI's reference of the streaming events of Responses, November 2026.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import from_json

from routing.completions import Call, Calls, Said
from routing.dialects import Translation
from routing.providers.base import Chunk, Stream
from routing.providers.sse import EventSplitter
from routing.responses_items import (
    Ids,
    call_item,
    ended,
    message_item,
    reasoning_item,
    refusal_part,
    summary_part,
    text_part,
    usage_object,
)
from routing.types import Usage

Kind = Literal["thought", "text", "refusal"]


@dataclass(slots=True)
class _Item:
    """An item of the output that is being written. `said` are its texts by kind, in the order of its parts."""

    id: str
    place: int
    call: Call | None = None
    said: dict[Kind, list[str]] = field(default_factory=dict)
    signed: list[Any] = field(default_factory=list)
    closed: bool = False

    def text(self, kind: Kind) -> str:
        return "".join(self.said.get(kind, ()))

    def whole(self) -> dict[str, Any]:
        if self.call:
            return call_item(self.id, self.call)
        if self.id.startswith("rs_"):
            return reasoning_item(self.id, self.text("thought"), self.signed)
        return message_item(self.id, self.text("text"), self.text("refusal"))


class ResponseEvents(Translation):
    """One response on its way. `response` is None until it begins; `number` is the next event's."""

    def __init__(self, ids: Ids, head: Callable[[str], dict[str, Any]]) -> None:
        super().__init__()
        self.response: dict[str, Any] | None = None
        self.number = 0
        self._ids, self._head = ids, head
        self._items: list[_Item] = []
        self._thought: _Item | None = None
        self._message: _Item | None = None
        self._calls = Calls()
        self._finish: str | None = None

    def begin(self, model: str) -> None:
        self.response = self._head(model)
        self._tell("response.created", response=self.response)
        self._tell("response.in_progress", response=self.response)

    def say(self, said: Said) -> None:
        if said.thought or said.signed:
            self._think(said)
        if said.text or said.refusal:
            self._speak(said)
        for fragment in said.calls:
            call, new = self._calls.take(fragment)
            item = self._begin_call(call) if new else next(item for item in self._items if item.call is call)
            if fragment.arguments:
                self._tell_of(item, "response.function_call_arguments.delta", delta=fragment.arguments)
        self._finish = said.finish or self._finish

    def end(self, usage: Usage | None, tokens: int) -> None:
        if not self._items:
            self._speak(Said())
        for item in self._items:
            if not item.closed:
                self._close(item)
        output, how = [item.whole() for item in self._items], self._ending()
        last = {"output": output, "completed_at": int(time.time()), "usage": usage_object(usage, tokens)}
        self.response = {**(self.response or {}), **how, **last}
        self._tell(f"response.{how['status']}", response=self.response)

    def _ending(self) -> dict[str, Any]:
        return ended(self._finish, refused=bool(self._message and self._message.text("refusal")))

    def _think(self, said: Said) -> None:
        if self._thought is None or self._thought.closed:
            self._thought = self._new("rs", None)
            begun = {**reasoning_item(self._thought.id, "", ()), "encrypted_content": None}
            self._tell("response.output_item.added", output_index=self._thought.place, item=begun)
        self._thought.signed += said.signed
        if said.thought:
            self._deliver(self._thought, "thought", said.thought)

    def _speak(self, said: Said) -> None:
        if self._message is None:
            self._message = self._new("msg", None)
            begun = {**message_item(self._message.id, "", "", "in_progress"), "content": []}
            self._tell("response.output_item.added", output_index=self._message.place, item=begun)
        if said.text or not said.refusal:
            self._deliver(self._message, "text", said.text)
        if said.refusal:
            self._deliver(self._message, "refusal", said.refusal)

    def _begin_call(self, call: Call) -> _Item:
        item = self._new("fc", call)
        begun = {**call_item(item.id, call, "in_progress"), "arguments": ""}
        self._tell("response.output_item.added", output_index=item.place, item=begun)
        return item

    def _deliver(self, item: _Item, kind: Kind, text: str) -> None:
        if kind not in item.said:
            item.said[kind] = []
            self._tell_part(item, kind, "added", _part(kind, ""))
        item.said[kind].append(text)
        if text:
            self._tell_of(item, f"{_EVENTS[kind]}.delta", **_where(item, kind), **_chances(kind), delta=text)

    def _close(self, item: _Item) -> None:
        item.closed = True
        if item.call:
            told = {"arguments": item.call.arguments, "name": item.call.name}
            self._tell_of(item, "response.function_call_arguments.done", **told)
        for kind in item.said:
            text = item.text(kind)
            said = {"refusal" if kind == "refusal" else "text": text}
            self._tell_of(item, f"{_EVENTS[kind]}.done", **_where(item, kind), **_chances(kind), **said)
            self._tell_part(item, kind, "done", _part(kind, text))
        self._tell("response.output_item.done", output_index=item.place, item=item.whole())

    def _new(self, kind: str, call: Call | None) -> _Item:
        """The next item. A thought is over when something else begins."""
        if self._thought and not self._thought.closed:
            self._close(self._thought)
        self._items.append(_Item(self._ids.new(kind), len(self._items), call))
        return self._items[-1]

    def _tell_part(self, item: _Item, kind: Kind, what: str, part: dict[str, Any]) -> None:
        name = "reasoning_summary_part" if kind == "thought" else "content_part"
        self._tell_of(item, f"response.{name}.{what}", **_where(item, kind), part=part)

    def _tell_of(self, item: _Item, kind: str, **more: Any) -> None:
        self._tell(kind, item_id=item.id, output_index=item.place, **more)

    def _tell(self, kind: str, **more: Any) -> None:
        self.event({"type": kind, **more, "sequence_number": self.number})
        self.number += 1


_EVENTS: dict[Kind, str] = {
    "thought": "response.reasoning_summary_text",
    "text": "response.output_text",
    "refusal": "response.refusal",
}


def _part(kind: Kind, text: str) -> dict[str, Any]:
    return {"thought": summary_part, "text": text_part, "refusal": refusal_part}[kind](text)


def _chances(kind: Kind) -> dict[str, list[Any]]:
    """Clients expect the field with every text; here nobody asked for its contents."""
    return {"logprobs": []} if kind == "text" else {}


def _where(item: _Item, kind: Kind) -> dict[str, int]:
    return {"summary_index" if kind == "thought" else "content_index": list(item.said).index(kind)}


class Watched(Stream):
    """A provider's own events, with what a later failure has to know: the response as begun, the next number."""

    def __init__(self, source: Stream) -> None:
        self.headers, self.dropped = source.headers, source.dropped
        self.response: dict[str, Any] | None = None
        self.number = 0
        self._source = source

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        splitter = EventSplitter()
        async for chunk in self._source:
            for event in splitter.feed(chunk.data):
                self._note(from_json(event.data) if event.data else {})
            yield chunk

    async def aclose(self) -> None:
        await self._source.aclose()

    def _note(self, event: dict[str, Any]) -> None:
        self.response = event.get("response") or self.response
        number = event.get("sequence_number")
        self.number = number + 1 if isinstance(number, int) else self.number + 1
