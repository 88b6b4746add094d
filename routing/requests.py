"""The requests beside chat: embeddings, and the text completions that came before chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag

from routing.types import Feature
from routing.wire import Asking, ChatRequest

Inputs = Sequence[str | Sequence[int]]  # texts, or texts as tokens


def _tag(value: Any) -> str | None:
    """How texts are given. An empty list is told like any other list of them."""
    if isinstance(value, str):
        return "one-text"
    if not isinstance(value, list):
        return None
    first = value[0] if value else ""
    return "token-list" if isinstance(first, int) else "token-lists" if isinstance(first, list) else "text-list"


_Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Texts = Annotated[
    Annotated[str, Tag("one-text")]
    | Annotated[list[str], Field(min_length=1), Tag("text-list")]
    | Annotated[_Tokens, Tag("token-list")]
    | Annotated[list[_Tokens], Tag("token-lists")],
    Discriminator(
        _tag,
        custom_error_type="texts_type",
        custom_error_message="Input should be a string, an array of strings, or one of tokens",
    ),
]


class EmbeddingRequest(Asking):
    """`POST /v1/embeddings`."""

    text_at = "input"

    input: Texts
    dimensions: int | None = Field(default=None, ge=1)
    encoding_format: Literal["float", "base64"] | None = None

    @property
    def inputs(self) -> Inputs:
        """What is to be embedded, one vector each."""
        return _listed(self.input)

    def places(self) -> Mapping[Feature, str]:
        return {"embeddings": "model"}


class CompletionRequest(Asking):
    """`POST /v1/completions`."""

    text_at = "prompt"

    prompt: Texts
    max_tokens: int | None = Field(default=None, ge=0)

    @property
    def inputs(self) -> Inputs:
        """What is to be continued, `n` times each."""
        return _listed(self.prompt)

    @property
    def output_limit(self) -> int | None:
        return self.max_tokens or None

    def limited(self, output_tokens: int) -> Self:
        request = self.model_copy(update={"max_tokens": output_tokens})
        request._fields = {**self._fields, "max_tokens": output_tokens}
        return request

    def places(self) -> Mapping[Feature, str]:
        return {"completions": "model"}


AnyRequest = ChatRequest | EmbeddingRequest | CompletionRequest


def _listed(given: str | list[str] | list[int] | list[list[int]]) -> Inputs:
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [given]  # then all of them are
    return given
