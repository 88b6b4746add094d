"""The shape of a request to the Messages API: unknown fields and unknown kinds of blocks are refused.

Source: the types of the official SDK, November 2026.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

CONTENT_TAGS = frozenset({"text-content", "block-content"})  # steps of an error's path that the API does not name
_ID = Field(pattern=r"^[a-zA-Z0-9_-]+$")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class _CacheControl(_Closed):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class _Cached(_Closed):
    cache_control: _CacheControl | None = None


class _Text(_Cached):
    type: Literal["text"]
    text: str
    citations: list[Any] | None = None


class _Base64Image(_Closed):
    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class _Url(_Closed):
    type: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https?://")]


class _File(_Closed):
    type: Literal["file"]
    file_id: str


class _Image(_Cached):
    type: Literal["image"]
    source: Annotated[_Base64Image | _Url | _File, Field(discriminator="type")]


class _Pdf(_Closed):
    type: Literal["base64"]
    media_type: Literal["application/pdf"]
    data: str


class _PlainText(_Closed):
    type: Literal["text"]
    media_type: Literal["text/plain"]
    data: str


class _Document(_Cached):
    type: Literal["document"]
    source: Annotated[_Pdf | _PlainText | _Url | _File, Field(discriminator="type")]
    title: str | None = None
    context: str | None = None
    citations: dict[str, Any] | None = None


class _Thinking(_Closed):
    type: Literal["thinking"]
    thinking: str
    signature: str


class _RedactedThinking(_Closed):
    type: Literal["redacted_thinking"]
    data: str


class _ToolUse(_Cached):
    type: Literal["tool_use"]
    id: Annotated[str, _ID]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    input: dict[str, Any]
    caller: dict[str, Any] | None = None


def _content_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "text-content"
    return "block-content" if isinstance(value, list) else None


_Inside = Annotated[_Text | _Image | _Document, Field(discriminator="type")]


class _ToolResult(_Cached):
    type: Literal["tool_result"]
    tool_use_id: Annotated[str, _ID]
    content: (
        Annotated[
            Annotated[str, Tag("text-content")] | Annotated[list[_Inside], Tag("block-content")],
            Discriminator(_content_tag),
        ]
        | None
    ) = None
    is_error: bool | None = None


_Block = Annotated[
    _Text | _Image | _Document | _Thinking | _RedactedThinking | _ToolUse | _ToolResult, Field(discriminator="type")
]


class _Message(_Closed):
    role: Literal["user", "assistant", "system"]
    content: Annotated[
        Annotated[str, Tag("text-content")] | Annotated[list[_Block], Tag("block-content")],
        Discriminator(_content_tag),
    ]


class _InputSchema(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Literal["object"]


class _Tool(_Cached):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    input_schema: _InputSchema
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    eager_input_streaming: bool | None = None
    input_examples: list[dict[str, Any]] | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None


class _AnyChoice(_Closed):
    type: Literal["auto", "any"]
    disable_parallel_tool_use: bool | None = None


class _OneTool(_Closed):
    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


class _NoTool(_Closed):
    type: Literal["none"]


class _Budget(_Closed):
    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=1024)]
    display: Literal["summarized", "omitted"] | None = None


class _Adaptive(_Closed):
    type: Literal["adaptive"]
    display: Literal["summarized", "omitted"] | None = None


class _PlainThinking(_Closed):
    type: Literal["disabled", "between_tools"]


class _JsonFormat(_Closed):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class _OutputConfig(_Closed):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: _JsonFormat | None = None


class _Metadata(_Closed):
    user_id: Annotated[str, Field(max_length=512)] | None = None


class Countable(_Closed):
    """`POST /v1/messages/count_tokens`."""

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[list[_Message], Field(min_length=1)]
    system: (
        Annotated[
            Annotated[str, Tag("text-content")] | Annotated[list[_Text], Tag("block-content")],
            Discriminator(_content_tag),
        ]
        | None
    ) = None
    tools: list[_Tool] | None = None
    tool_choice: Annotated[_AnyChoice | _OneTool | _NoTool, Field(discriminator="type")] | None = None
    thinking: Annotated[_Budget | _Adaptive | _PlainThinking, Field(discriminator="type")] | None = None
    output_config: _OutputConfig | None = None
    cache_control: _CacheControl | None = None
    speed: Literal["standard", "fast"] | None = None


class Request(Countable):
    """`POST /v1/messages`."""

    max_tokens: Annotated[int, Field(ge=0)]
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    metadata: _Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    inference_geo: str | None = None
    container: str | None = None
    diagnostics: dict[str, Any] | None = None
