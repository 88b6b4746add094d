"""What the router reads in a Responses answer that goes to the caller as it came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routing.errors import BadReply
from routing.providers.classify import from_error_in_reply
from routing.providers.native import Seen, an_object, counted
from routing.types import Usage

_COMPLETE = frozenset({"completed", "incomplete"})
_CALLS = frozenset({"function_call", "custom_tool_call"})


def read_response(body: bytes) -> tuple[Usage | None, str | None]:
    """The usage and the model of a whole response. Raises what an error in it means, or BadReply."""
    response = an_object(body)
    with counted(lambda: _usage(response)):
        if isinstance(error := response.get("error"), dict):
            raise from_error_in_reply(error)
        if not isinstance(response.get("output"), list) or str(response.get("status", "completed")) not in _COMPLETE:
            raise BadReply("The provider's reply holds no finished response.")
    return _usage(response), _model(response)


def watch(event: Mapping[str, Any]) -> Seen:
    """Raises what `error` and `response.failed` mean."""
    kind = event.get("type")
    if not isinstance(kind, str):
        error = event.get("error")
        raise from_error_in_reply(error) if isinstance(error, dict) else BadReply("The provider sent no event.")
    response = event.get("response")
    if kind in ("error", "response.failed"):
        with counted(lambda: _usage(response) if isinstance(response, dict) else None):
            raise from_error_in_reply(_error(event, response))
    if kind.endswith(".delta"):
        said = bool(event.get("delta"))
        return Seen(meaningful=said, tokens=int(said))
    if isinstance(response, dict):
        last = kind in ("response.completed", "response.incomplete")
        return Seen(last, usage=_usage(response) if last else None, model=_model(response), last=last)
    return Seen(meaningful=kind == "response.output_item.done" or _begins_a_call(event))


def _begins_a_call(event: Mapping[str, Any]) -> bool:
    item = event.get("item")
    return isinstance(item, dict) and str(item.get("type")) in _CALLS


def _error(event: Mapping[str, Any], response: object) -> Mapping[str, Any]:
    """The error of an event, which stands in it, in a member, or in the response that it ends."""
    holder = response if isinstance(response, dict) else event
    found = holder.get("error")
    return found if isinstance(found, dict) else {name: event.get(name) for name in ("code", "message", "param")}


def _usage(response: Mapping[str, Any]) -> Usage | None:
    counts = response.get("usage")
    if not isinstance(counts, dict):
        return None
    return Usage(
        input=_count(counts, "input_tokens"),
        output=_count(counts, "output_tokens"),
        cached=_count(counts.get("input_tokens_details"), "cached_tokens"),
        reasoning=_count(counts.get("output_tokens_details"), "reasoning_tokens"),
        cache_write=_count(counts.get("input_tokens_details"), "cache_write_tokens"),
    )


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def _model(response: Mapping[str, Any]) -> str | None:
    model = response.get("model")
    return model if isinstance(model, str) else None
