"""Well-known services that speak OpenAI's protocol: where they are, the usual name of their key, their differences.

A row says only what its sources say. docs/services.md is written from this table by `python -m tools.services`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from routing.providers.quirks import Quirks


@dataclass(frozen=True, slots=True)
class Service:
    """`key` is the app setting that a key is usually kept in; None: a server of one's own, which asks for none."""

    title: str
    base_url: str
    key: str | None
    sources: tuple[str, ...]
    checked: str  # the day on which the sources said so
    quirks: Quirks = field(default_factory=Quirks)  # of chat completions
    embedding_quirks: Quirks = field(default_factory=Quirks)
    note: str = ""


_NO_DEVELOPER: Mapping[str, str] = MappingProxyType({"developer": "system"})
_OLD_LIMIT: Mapping[str, str] = MappingProxyType({"max_completion_tokens": "max_tokens"})
_MISTRAL_CHAT = (
    "model messages temperature top_p max_tokens stream stop random_seed metadata response_format tools tool_choice "
    "presence_penalty frequency_penalty n prediction parallel_tool_calls reasoning_effort prompt_mode guardrails "
    "prompt_cache_key safe_prompt"
)
_OLLAMA_CHAT = (
    "model messages frequency_penalty logprobs max_tokens presence_penalty reasoning reasoning_effort response_format "
    "seed stop stream stream_options temperature tools top_logprobs top_p"
)
_MISTRAL_EMBEDDINGS = "model input metadata output_dimension output_dtype encoding_format"

SERVICES: Mapping[str, Service] = {
    "cerebras": Service(
        title="Cerebras",
        base_url="https://api.cerebras.ai/v1",
        key="CEREBRAS_API_KEY",
        sources=(
            "https://inference-docs.cerebras.ai/resources/openai",
            "https://github.com/blue-pen5805/llm-proxy-on-cloudflare-workers/blob/main/src/providers/cerebras/provider.ts",
        ),
        checked="2026-11-23",
        quirks=Quirks(
            roles=_NO_DEVELOPER,
            refuses=frozenset(
                {"frequency_penalty", "logit_bias", "parallel_tool_calls", "presence_penalty", "service_tier"}
            ),
        ),
    ),
    "deepseek": Service(
        title="DeepSeek",
        base_url="https://api.deepseek.com/v1",
        key="DEEPSEEK_API_KEY",
        sources=(
            "https://www.cloudwego.io/docs/eino/ecosystem/chat_model/chat_model_deepseek",
            "https://github.com/earendil-works/pi/issues/1048",
            "https://github.com/anomalyco/opencode/pull/44602",
        ),
        checked="2026-11-23",
        quirks=Quirks(roles=_NO_DEVELOPER, renames=_OLD_LIMIT),
        note='It has JSON objects but no JSON schemas: say `supports = ["tools"]`. It makes no embeddings.',
    ),
    "fireworks": Service(
        title="Fireworks AI",
        base_url="https://api.fireworks.ai/inference/v1",
        key="FIREWORKS_API_KEY",
        sources=(
            "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
            "https://docs.pipecat.ai/server/services/llm/fireworks",
        ),
        checked="2026-11-23",
    ),
    "gemini": Service(
        title="Google Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key="GEMINI_API_KEY",
        sources=(
            "https://ai.google.dev/gemini-api/docs/openai",
            "https://github.com/versun/RSSBox/issues/132",
            "https://github.com/Vali-98/ChatterUI/issues/227",
        ),
        checked="2026-11-23",
        quirks=Quirks(refuses=frozenset({"frequency_penalty", "seed"})),
        note="Fields that OpenAI does not have are refused too; the `refuses` of its quirks can name more of them.",
    ),
    "groq": Service(
        title="Groq",
        base_url="https://api.groq.com/openai/v1",
        key="GROQ_API_KEY",
        sources=(
            "https://console.groq.com/docs/openai",
            "https://github.com/skye-harris/hass_local_openai_llm/issues/59",
        ),
        checked="2026-11-23",
        quirks=Quirks(
            refuses=frozenset({"logit_bias", "logprobs", "messages[].name", "metadata", "n", "top_logprobs"}),
        ),
        note="It has neither text completions nor embeddings.",
    ),
    "llamacpp": Service(
        title="llama.cpp server",
        base_url="http://127.0.0.1:9931/v1",
        key=None,
        sources=(
            "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
            "https://github.com/ggml-org/llama.cpp/pull/20215",
            "https://github.com/ggml-org/llama.cpp/pull/26508",
        ),
        checked="2026-11-23",
        quirks=Quirks(roles=_NO_DEVELOPER),
        note="Older builds listen at port 8080: say so with `base_url`. Builds since March 2026 know `developer`.",
    ),
    "lmstudio": Service(
        title="LM Studio",
        base_url="http://127.0.0.1:1234/v1",
        key=None,
        sources=(
            "https://lmstudio.ai/docs/api/openai-api",
            "https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/669",
        ),
        checked="2026-11-23",
        quirks=Quirks(roles=_NO_DEVELOPER),
    ),
    "mistral": Service(
        title="Mistral",
        base_url="https://api.mistral.ai/v1",
        key="MISTRAL_API_KEY",
        sources=(
            "https://github.com/mistralai/client-python/blob/main/src/mistralai/client/models/chatcompletionrequest.py",
            "https://github.com/mistralai/client-python/blob/main/src/mistralai/client/models/embeddingrequest.py",
            "https://github.com/editor-code-assistant/eca/issues/231",
        ),
        checked="2026-11-23",
        quirks=Quirks(
            roles=_NO_DEVELOPER,
            renames=MappingProxyType({**_OLD_LIMIT, "seed": "random_seed"}),
            knows=frozenset(_MISTRAL_CHAT.split()),
        ),
        embedding_quirks=Quirks(
            renames=MappingProxyType({"dimensions": "output_dimension"}),
            knows=frozenset(_MISTRAL_EMBEDDINGS.split()),
        ),
        note="A stream ends with its usage without being asked.",
    ),
    "ollama": Service(
        title="Ollama",
        base_url="http://127.0.0.1:11434/v1",
        key=None,
        sources=(
            "https://docs.ollama.com/api/openai-compatibility",
            "https://github.com/ollama/ollama/issues/7125",
            "https://github.com/ollama/ollama/issues/18305",
        ),
        checked="2026-11-27",
        quirks=Quirks(roles=_NO_DEVELOPER, renames=_OLD_LIMIT, heeds=frozenset(_OLLAMA_CHAT.split())),
        note='`type = "ollama"` says the same with less. Messages of the role `developer` it would overlook as well.',
    ),
    "openrouter": Service(
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key="OPENROUTER_API_KEY",
        sources=("https://openrouter.ai/docs/quickstart",),
        checked="2026-11-23",
    ),
    "together": Service(
        title="Together AI",
        base_url="https://api.together.ai/v1",
        key="TOGETHER_API_KEY",
        sources=(
            "https://docs.together.ai/docs/inference/openai-compatibility",
            "https://github.com/anomalyco/opencode/pull/44602",
        ),
        checked="2026-11-23",
        quirks=Quirks(renames=_OLD_LIMIT),
    ),
    "vllm": Service(
        title="vLLM",
        base_url="http://127.0.0.1:8000/v1",
        key=None,
        sources=(
            "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
            "https://github.com/ogx-ai/ogx/issues/6069",
        ),
        checked="2026-11-23",
        quirks=Quirks(roles=_NO_DEVELOPER),
    ),
    "xai": Service(
        title="xAI",
        base_url="https://api.x.ai/v1",
        key="XAI_API_KEY",
        sources=(
            "https://docs.pipecat.ai/server/services/llm/grok",
            "https://github.com/miaoxworld/NativeTavern/issues/83",
            "https://github.com/QuantumNous/new-api/pull/6081",
        ),
        checked="2026-11-23",
        quirks=Quirks(refuses=frozenset({"frequency_penalty", "presence_penalty"})),
        note="Its reasoning models refuse `stop` as well. That stays an error: without it the answer would be another.",
    ),
}
