"""How a service differs from OpenAI's own API, as data, and a request made to fit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from routing.settings import Settings

# A field with this value asks for nothing: without it the answer is the same.
_ASKS_NOTHING: Mapping[str, Any] = {
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "metadata": {},
    "n": 1,
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "service_tier": "auto",
    "store": False,
    "tool_choice": "auto",
}


@dataclass(frozen=True, slots=True)
class Quirks:
    """The differences of one service; none unless said. A field of each message is written `messages[].name`."""

    roles: Mapping[str, str] = field(default_factory=dict)  # a role it does not know -> the one it knows
    renames: Mapping[str, str] = field(default_factory=dict)  # a field it does not know -> its own name for it
    refuses: frozenset[str] = frozenset()  # fields that it answers with an error
    knows: frozenset[str] | None = None  # the only fields it takes; None: it refuses no others
    heeds: frozenset[str] | None = None  # the only ones it does not overlook, as far as is known; None: all

    def takes(self, name: str) -> bool:
        """Whether a field by this name may be sent."""
        return name not in self.refuses and (self.knows is None or name in self.knows)

    def serves(self, name: str) -> bool:
        """Whether a field by this name does anything."""
        return self.takes(name) and (self.heeds is None or name in self.heeds)


class QuirkSettings(Settings):
    """`[providers.NAME.quirks]`: what is different from the service's row, or from OpenAI's API without a service."""

    roles: dict[str, str] | None = None
    renames: dict[str, str] | None = None
    refuses: list[str] | None = None
    knows: list[str] | None = None
    heeds: list[str] | None = None

    def over(self, row: Quirks) -> Quirks:
        """The row, with what is said here in place of what it says."""
        return Quirks(
            roles=row.roles if self.roles is None else self.roles,
            renames=row.renames if self.renames is None else self.renames,
            refuses=row.refuses if self.refuses is None else frozenset(self.refuses),
            knows=row.knows if self.knows is None else frozenset(self.knows),
            heeds=row.heeds if self.heeds is None else frozenset(self.heeds),
        )


def shaped(fields: Mapping[str, Any], quirks: Quirks) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The request as the service takes it, and the fields that asked for something in vain.

    What a service is known to overlook is sent all the same: a later version may heed it.
    """
    sent: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in (fields if quirks.serves("tool_choice") else _chosen(fields)).items():
        theirs = quirks.renames.get(name, name)
        if quirks.takes(theirs) and (value is not None or theirs not in sent):
            sent[theirs] = value
        if not quirks.serves(theirs) and value is not None and _ASKS_NOTHING.get(name) != value:
            dropped.append(name)
    if isinstance(messages := sent.get("messages"), list):
        sent["messages"] = [_message(message, quirks, dropped) for message in messages]
    return sent, tuple(dropped)


def _chosen(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """As near as a service that knows no `tool_choice` gets to it: no tools, or only the one that is to be called."""
    choice, tools = fields.get("tool_choice"), fields.get("tools")
    if choice == "none":
        return {name: value for name, value in fields.items() if name not in ("tool_choice", "tools")}
    if not isinstance(choice, dict) or not isinstance(tools, list):
        return fields
    return {**fields, "tools": [tool for tool in tools if _name(tool) == _name(choice)] or tools}


def _name(tool: Any) -> Any:
    """The name in a function tool, or in the choice of one."""
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _message(message: Mapping[str, Any], quirks: Quirks, dropped: list[str]) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    for name, value in message.items():
        place = f"messages[].{name}"
        if place not in quirks.refuses:
            sent[name] = quirks.roles.get(value, value) if name == "role" else value
        elif value is not None and place not in dropped:
            dropped.append(place)
    return sent
