"""What travels over HTTP: the OpenAI chat protocol, checked only as deep as the router reads.

Unknown fields pass through: a request keeps the mapping it was parsed into, and `payload` hands that on.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag, ValidationError
from pydantic_core import from_json, to_json

from routing.contradictions import contradiction
from routing.errors import InvalidRequest
from routing.types import Feature, Usage

T = TypeVar("T")
MessageRole = Literal["system", "developer", "user", "assistant", "tool", "function"]
_TAGS = frozenset({"text-content", "part-content", "one-text", "text-list", "token-list", "token-lists"})
_HUGE = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{150}")  # what a number beyond a double may look like
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
_LARGEST_ECHO = 100  # characters of a caller's value that an error message repeats


class Wire(BaseModel):
    """Open to fields we do not know, and never changed after parsing."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True, defer_build=True)


class ImageUrl(Wire):
    url: str


class Part(Wire):
    """One piece of a message's content. Kinds that are unknown here are the provider's affair."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


def _content_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "text-content"
    return "part-content" if isinstance(value, list) else None


Content = Annotated[
    Annotated[str, Tag("text-content")] | Annotated[list[Part], Tag("part-content")],
    Discriminator(
        _content_tag,
        custom_error_type="content_type",
        custom_error_message="Input should be a string or an array of content parts",
    ),
]


class Message(Wire):
    role: MessageRole
    content: Content | None = None
    tool_calls: list[Any] | None = None


class StreamOptions(Wire):
    include_usage: bool | None = None


class ResponseFormat(Wire):
    type: str


class Hints(BaseModel):
    """The `router` object of a request: wishes and ceilings for this one request. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, defer_build=True)

    task: str | None = None  # one of the ten, in snake or Camel case
    strategy: Literal["task", "cost", "speed"] | None = None
    max_cost_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # of the whole request, at worst
    max_latency_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # to the first token
    min_quality: float | None = Field(default=None, ge=0, le=1)
    priority: int | None = Field(default=None, ge=1, le=10)
    only: list[str] | None = Field(default=None, min_length=1)  # targets
    deny: list[str] | None = None  # targets


class Asking(Wire):
    """What every request says that a model is to answer, whatever it asks for."""

    text_at: ClassVar[str] = "messages"  # the field with the text to answer

    model: str = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1)
    metadata: dict[str, Any] | None = None
    router: Hints | None = None

    _fields: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises InvalidRequest that names the place: line and column, or a path such as `messages[2].content`."""
        fields = parse_object(body)
        request = cls.of(fields)
        if wrong := contradiction(fields):
            raise InvalidRequest(f"{wrong.path}: {wrong.reason}.", param=wrong.path)
        return request

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """The request that these fields make, which it keeps: they must not change. Raises as `parse` does."""
        request = validated(cls.model_validate, fields)
        request._fields = fields
        return request

    @property
    def fields(self) -> Mapping[str, Any]:
        """The request as it came, every field of it. Not to be changed."""
        return self._fields

    @property
    def output_limit(self) -> int | None:
        """The most output tokens the caller asks for."""
        return None

    def limited(self, output_tokens: int) -> Self:
        """The same request with at most this many output tokens."""
        return self

    def places(self) -> Mapping[Feature, str]:
        """The features a target must have to answer this request, each with the first place that asks for it."""
        return {}

    def needs(self) -> frozenset[Feature]:
        """The features a target must have to answer this request."""
        return frozenset(self.places())

    @property
    def wants_usage(self) -> bool:
        """Whether the caller asked for the usage chunk at a stream's end."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def payload(self, model: str, *, ask_usage: bool = False) -> bytes:
        """The caller's body for a provider: `model` replaced, our own `router` object taken out, the rest as it came.

        `ask_usage` makes a stream end with its usage, which the router needs even when the caller does not ask.
        """
        return to_json(self.outgoing(model, ask_usage=ask_usage))

    def outgoing(self, model: str, *, ask_usage: bool = False) -> dict[str, Any]:
        """What `payload` writes, before it is written."""
        fields = {**self._fields, "model": model}
        fields.pop("router", None)
        if ask_usage:
            fields["stream_options"] = {**(fields.get("stream_options") or {}), "include_usage": True}
        return fields


class ChatRequest(Asking):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    tools: list[Any] | None = None
    functions: list[Any] | None = None  # what `tools` was called before
    modalities: list[Any] | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def output_limit(self) -> int | None:
        """The most output tokens the caller asks for."""
        return self.max_completion_tokens or self.max_tokens

    def limited(self, output_tokens: int) -> Self:
        """The same request with at most this many output tokens, said in the field the caller itself uses."""
        used = [name for name in ("max_tokens", "max_completion_tokens") if getattr(self, name)]
        limits = dict.fromkeys(used or ["max_completion_tokens"], output_tokens)
        request = self.model_copy(update=limits)
        request._fields = {**self._fields, **limits}
        return request

    def outgoing(self, model: str, *, ask_usage: bool = False) -> dict[str, Any]:
        """What `payload` writes, before it is written: without the thoughts that another protocol's client kept."""
        fields = super().outgoing(model, ask_usage=ask_usage)
        if any("thinking_blocks" in message for message in fields["messages"]):
            fields["messages"] = [_without_thinking(message) for message in fields["messages"]]
        return fields

    def places(self) -> Mapping[Feature, str]:
        """The features a target must have to answer this request, each with the first place that asks for it."""
        found: dict[Feature, str] = {}
        for name in ("tools", "functions"):
            if getattr(self, name):
                found.setdefault("tools", name)
        if self.modalities and "audio" in self.modalities:
            found["audio"] = "modalities"
        if self.response_format and self.response_format.type == "json_schema":
            found["json_schema"] = "response_format"
        for place, message in enumerate(self.messages):
            for feature, path in _needed_by(message):
                found.setdefault(feature, f"messages[{place}]{path}")
        return found


def _without_thinking(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without the signed thoughts of an Anthropic target and their text: nobody else takes them."""
    if "thinking_blocks" not in message:
        return dict(message)
    return {name: value for name, value in message.items() if name not in ("thinking_blocks", "reasoning_content")}


_PART_NEEDS: Mapping[str, Feature] = {"image_url": "vision", "input_audio": "audio"}


def _needed_by(message: Message) -> Iterator[tuple[Feature, str]]:
    """What one message asks of a target, each with its place in the message."""
    if isinstance(message.content, list):
        for place, part in enumerate(message.content):
            if part.type in _PART_NEEDS:
                yield _PART_NEEDS[part.type], f".content[{place}]"
    if message.tool_calls:
        yield "tools", ".tool_calls"
    elif message.role == "tool":
        yield "tools", ".role"


class TokenDetails(Wire):
    cached_tokens: int | None = Field(default=None, ge=0)
    reasoning_tokens: int | None = Field(default=None, ge=0)


class WireUsage(Wire):
    """A reply's `usage` object."""

    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None


def usage_of(reply: Mapping[str, Any]) -> Usage | None:
    """The usage a reply or chunk reports; None when it reports none or one that cannot be read."""
    found = reply.get("usage")
    if not isinstance(found, dict):
        return None
    try:
        usage = WireUsage.model_validate(found)
    except ValidationError:
        return None
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    reasoning = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else 0
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached or 0, reasoning or 0)


def parse_object(body: bytes) -> dict[str, Any]:
    """A request body as a mapping. Raises InvalidRequest with line and column."""
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        if (mended := _without_half_pairs(body)) != body:
            return parse_object(mended)
        raise InvalidRequest(f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_json")
    if _HUGE.search(body) and (place := next(_overflows(fields), None)) is not None:
        path = path_of(place)[:_LARGEST_ECHO]
        raise InvalidRequest(f"{path}: the number is too large, such as 1e400.", param=path, code="invalid_json")
    return fields


def _without_half_pairs(body: bytes) -> bytes:
    """With the sign for an unreadable character in place of halves of surrogate pairs, which no provider could be sent.

    Programs that cut a text inside an emoji write such halves; RFC 8259 allows them and leaves open what they mean.
    """
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found["half"] else found[0], body)


def _overflows(value: Any, *way: int | str) -> Iterator[tuple[int | str, ...]]:
    """Where numbers were read as infinity, which could not be written as JSON again."""
    if isinstance(value, float) and math.isinf(value):
        yield way
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in inside:
        yield from _overflows(each, *way, step)


def validated(check: Callable[[Any], T], value: Any) -> T:
    """`check(value)`, with the first violation raised as InvalidRequest whose `param` is the path."""
    try:
        return check(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = path_of(first["loc"])[:_LARGEST_ECHO]
        raise InvalidRequest(f"{path}: {first['msg']}.", param=path) from None


def path_of(location: tuple[int | str, ...]) -> str:
    """A pydantic location as people write it: `messages[2].content`."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in _TAGS:
            path += f".{step}" if path else str(step)
    return path
