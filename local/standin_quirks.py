"""What a service that imitates OpenAI refuses of it, or overlooks: written as words that a stand-in is told.

`NAME` refuses a field of the request, `messages[].NAME` one of a message, `role:NAME` a role, `n>1` several answers;
`only:NAME NAME` refuses every other field; `overlooks:NAME` behaves as if a field were not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from local.standin_wire import Refusal


def bent(request: Mapping[str, Any], quirks: Sequence[str]) -> Mapping[str, Any]:
    """The request as such a service sees it. Raises Refusal (400) with the place it minds."""
    for quirk in quirks:
        for place in _minded(request, quirk):
            raise Refusal(400, f"Unknown or unsupported here: '{place}'.", param=place, code="unsupported_parameter")
    overlooked = {quirk.removeprefix("overlooks:") for quirk in quirks}
    return {name: value for name, value in request.items() if name not in overlooked}


def _minded(request: Mapping[str, Any], quirk: str) -> Iterator[str]:
    kind, _, rest = quirk.partition(":")
    if kind == "only":
        known = rest.split()
        yield from (name for name in request if name not in known)
    elif kind == "role" or quirk.startswith("messages[]."):
        yield from _minded_in_messages(request.get("messages", []), quirk)
    elif quirk == "n>1":
        yield from ("n" for _ in range(1) if (request.get("n") or 1) > 1)
    elif kind != "overlooks" and quirk in request:
        yield quirk


def _minded_in_messages(messages: Sequence[Mapping[str, Any]], quirk: str) -> Iterator[str]:
    for place, message in enumerate(messages):
        if quirk == f"role:{message.get('role')}":
            yield f"messages[{place}].role"
        name = quirk.removeprefix("messages[].")
        if name in message:
            yield f"messages[{place}].{name}"
