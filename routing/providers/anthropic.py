"""Anthropic's Messages API behind the contract of every provider: its settings, and where it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AnyHttpUrl, Field

from routing.providers.base import Credential, Provider, ProviderSettings

KEY_HEADER = ("x-api-key", "")
_WITHOUT_SAMPLING = "2026-10-21"  # the first version of the API that knows neither temperature nor top_p


class AnthropicSettings(ProviderSettings):
    """`type = "anthropic"`: the Messages API, at Anthropic or at a service that speaks it."""

    type: Literal["anthropic"]
    base_url: AnyHttpUrl = AnyHttpUrl("https://api.anthropic.com")
    version: str = Field(default="2023-06-01", pattern=r"^\d{4}-\d{2}-\d{2}$")  # the header `anthropic-version`
    default_max_tokens: int = Field(default=8_192, ge=1)  # where neither the request nor the target says one
    sampling: bool = False  # hand on temperature and top_p, which models since Claude Opus 4.7 refuse

    @classmethod
    def contradiction(cls, given: Mapping[str, Any]) -> str | None:
        version = given.get("version")
        if given.get("sampling") is True and isinstance(version, str) and version >= _WITHOUT_SAMPLING:
            return f"sampling = true needs a version before {_WITHOUT_SAMPLING}, which takes no temperature"
        return None


def build(name: str, settings: AnthropicSettings, credential: Credential) -> Provider:
    from routing.providers.anthropic_provider import AnthropicProvider  # 20 ms that only its users should wait for

    return AnthropicProvider(
        name,
        credential,
        str(settings.base_url),
        version=settings.version,
        default_max_tokens=settings.default_max_tokens,
        sampling=settings.sampling,
    )
