"""The declared cells of the matrix: client x feature x provider, each offered or not, and why not.

tests/test_conformance.py proves every cell; docs/compatibility.md is written from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True, slots=True)
class Client:
    """One client: `package` is the name its pin has, in the file `pinned_in`."""

    title: str
    package: str
    pinned_in: str
    speaks: str


@dataclass(frozen=True, slots=True)
class Exemption:
    """Cells that are not a plain yes. `says` is what the error tells, and "" where the client itself lacks the call.

    With `offered` the cell is a yes under the condition that `reason` names.
    """

    reason: str
    feature: str
    client: str | None = None
    provider: str | None = None
    offered: bool = False
    says: str = ""

    def covers(self, client: str, feature: str, provider: str) -> bool:
        """Whether that cell is one of these; None stands for every client or provider."""
        return self.feature == feature and self.client in (None, client) and self.provider in (None, provider)


@dataclass(frozen=True, slots=True)
class Cell:
    """One client doing one thing with one kind of provider."""

    client: str
    feature: str
    provider: str
    exemption: Exemption | None = None

    @property
    def offered(self) -> bool:
        return self.exemption is None or self.exemption.offered

    def __str__(self) -> str:
        return f"{self.client}-{self.feature}-{self.provider}"


CLIENTS = {
    "openai-python": Client("OpenAI SDK for Python", "openai", "requirements-dev.txt", "/v1"),
    "responses-python": Client("OpenAI SDK for Python, `responses`", "openai", "requirements-dev.txt", "/v1/responses"),
    "anthropic-python": Client("Anthropic SDK for Python", "anthropic", "requirements-dev.txt", "/v1/messages"),
    "openai-node": Client("OpenAI SDK for Node", "openai", "package.json", "/v1"),
    "langchain": Client("LangChain, `ChatOpenAI`", "langchain-openai", "requirements-dev.txt", "/v1"),
    "ai-sdk": Client("Vercel AI SDK, `createOpenAICompatible`", "@ai-sdk/openai-compatible", "package.json", "/v1"),
    "ai-sdk-openai": Client("Vercel AI SDK, `createOpenAI`", "@ai-sdk/openai", "package.json", "/v1/responses"),
    "ai-sdk-anthropic": Client("Vercel AI SDK, `createAnthropic`", "@ai-sdk/anthropic", "package.json", "/v1/messages"),
}
AI_SDKS = [name for name in CLIENTS if name.startswith("ai-sdk")]
PROVIDERS = {
    "openai": "OpenAI",
    "azure_openai": "Azure OpenAI, v1",
    "azure_classic": "Azure OpenAI, classic",
    "anthropic": "Anthropic",
    "ollama": "Ollama",
}
FEATURES = {
    "plain": "An answer in one piece",
    "stream": "An answer as a stream",
    "tools": "A tool call and its result",
    "parallel_tools": "Parallel tool calls out of a stream, and their results",
    "structured": "Structured output by a JSON schema",
    "images": "An image in the question",
    "embeddings": "Embeddings",
    "error_400": "400: an image to a model without vision, before a provider is asked",
    "error_401": "401: a wrong key of the router",
    "error_404": "404: an unknown model, with the names of those there are",
    "error_429": "429: a throttled provider, with the time to wait",
    "cancel": "Leaving a stream ends the provider's work",
    "retries": "The client's retries do not multiply the router's",
}
EXEMPTIONS = (
    *(
        Exemption(
            "The SDK has no embeddings, as Anthropic has none. Ask `/v1/embeddings` with another client.",
            feature="embeddings",
            client=client,
        )
        for client in ("anthropic-python", "ai-sdk-anthropic")
    ),
    Exemption(
        'With `structuredOutputMode: "outputFormat"`: the AI SDK forces a tool for a model of another name '
        "instead, which Ollama does not heed.",
        feature="structured",
        client="ai-sdk-anthropic",
        offered=True,
    ),
    Exemption(
        "Anthropic has no embeddings. The router answers 400 `no_suitable_target`.",
        feature="embeddings",
        provider="anthropic",
        says="lacks embeddings",
    ),
    *(
        Exemption(
            "With `maxRetries: 0`: the AI SDK does not heed `x-should-retry: false`, so its own retries would start "
            "the router's anew.",
            feature="retries",
            client=client,
            offered=True,
        )
        for client in AI_SDKS
    ),
)


def cells() -> Iterator[Cell]:
    """Every cell of the matrix."""
    for client, feature, provider in product(CLIENTS, FEATURES, PROVIDERS):
        found = next((rule for rule in EXEMPTIONS if rule.covers(client, feature, provider)), None)
        yield Cell(client, feature, provider, found)
