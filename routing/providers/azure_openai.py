"""Azure OpenAI: the OpenAI protocol at another address, with an `api-key` or an Entra token.

Without `api_version` the v1 address is used, which takes the deployment's name as `model`; with it, the classic one.
Source: Microsoft Learn, "Azure OpenAI in Foundry Models API version lifecycle".
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import httpx
from pydantic import AnyHttpUrl, Field, model_validator

from routing.providers.base import Credential, Provider, ProviderSettings
from routing.providers.openai import CHAT, COMPLETIONS, EMBEDDINGS, MODELS, Address, OpenAIProvider
from routing.types import Target

KEY_HEADER = ("api-key", "")


class AzureOpenAISettings(ProviderSettings):
    """`type = "azure_openai"`: one resource, by key or by identity."""

    type: Literal["azure_openai"]
    endpoint: AnyHttpUrl
    api_version: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}(-preview)?$")
    auth: Literal["key", "identity"] = "key"
    stream_usage: bool = True
    responses: bool = True  # hand Responses requests on as they are, which the v1 address takes

    @model_validator(mode="after")
    def _one_way_in(self) -> AzureOpenAISettings:
        if self.auth == "key" and self.key is None:
            raise ValueError('needs key = "keyvault:name" or "env:NAME", or auth = "identity"')
        if self.auth == "identity" and self.key is not None:
            raise ValueError('has both a key and auth = "identity"; keep one')
        return self


def build(name: str, settings: AzureOpenAISettings, credential: Credential) -> Provider:
    native = settings.responses and settings.api_version is None
    return OpenAIProvider(
        name,
        credential,
        _address(settings),
        stream_usage=settings.stream_usage,
        responses_url=httpx.URL(f"{_v1(settings)}/responses") if native else None,
    )


def _v1(settings: AzureOpenAISettings) -> str:
    return str(settings.endpoint).rstrip("/") + "/openai/v1"


def _address(settings: AzureOpenAISettings) -> Address:
    if settings.api_version is None:
        urls = {kind: httpx.URL(f"{_v1(settings)}/{kind}") for kind in (CHAT, EMBEDDINGS, COMPLETIONS, MODELS)}
        return lambda _, kind: urls[kind]
    base, version = str(settings.endpoint).rstrip("/"), settings.api_version

    def classic(target: Target, kind: str) -> httpx.URL:
        if kind == MODELS:
            return httpx.URL(f"{base}/openai/models?api-version={version}")
        return httpx.URL(f"{base}/openai/deployments/{quote(target.model, safe='')}/{kind}?api-version={version}")

    return classic
