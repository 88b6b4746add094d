"""Ollama on this machine or another: OpenAI's protocol under `/v1`, with no key unless one is given."""

from __future__ import annotations

from typing import Literal

from pydantic import AnyHttpUrl

from routing.providers import openai
from routing.providers.base import Credential, Provider, ProviderSettings

KEY_HEADER = openai.KEY_HEADER


class OllamaSettings(ProviderSettings):
    """`type = "ollama"`."""

    type: Literal["ollama"]
    endpoint: AnyHttpUrl = AnyHttpUrl("http://127.0.0.1:11434")


def build(name: str, settings: OllamaSettings, credential: Credential) -> Provider:
    row = openai.OpenAISettings(type="openai", service="ollama", base_url=settings.endpoint)
    return openai.build(name, row, credential)
