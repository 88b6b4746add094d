"""Azure OpenAI: the OpenAI protocol at another address, with an `api-key` or an Entra token.

Without `api_version` the v1 address is used, which takes the deployment's name as `model`; with it, the classic one.
Source: Microsoft Learn, "Azure OpenAI in Foundry Models API version lifecycle".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

import httpx
from pydantic import AnyHttpUrl, Field
from pydantic_core import to_json

from routing.errors import BadRequest, NotFound, Unauthorized
from routing.providers.base import Credential, Provider, ProviderSettings
from routing.providers.openai import CHAT, COMPLETIONS, EMBEDDINGS, MODELS, Address, OpenAIProvider
from routing.types import Target

KEY_HEADER = ("api-key", "")
ROLE = "Cognitive Services OpenAI User"


class AzureOpenAISettings(ProviderSettings):
    """`type = "azure_openai"`: one resource, by key or by identity."""

    type: Literal["azure_openai"]
    endpoint: AnyHttpUrl
    api_version: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}(-preview)?$")
    auth: Literal["key", "identity"] = "key"
    stream_usage: bool = True
    responses: bool = True  # hand Responses requests on as they are, which the v1 address takes

    @classmethod
    def contradiction(cls, given: Mapping[str, Any]) -> str | None:
        auth, key = given.get("auth", "key"), given.get("key")
        if auth == "key" and key is None:
            return 'needs key = "keyvault:name" or "env:NAME", or auth = "identity"'
        return 'has both a key and auth = "identity"; keep one' if auth == "identity" and key is not None else None


class AzureOpenAI(OpenAIProvider):
    """The OpenAI protocol, and a check that says how to mend what an account lacks."""

    checks_models = True

    def __init__(
        self,
        name: str,
        credential: Credential,
        address: Address,
        *,
        endpoint: AnyHttpUrl,
        by_identity: bool,
        stream_usage: bool,
        responses_url: httpx.URL | None,
    ) -> None:
        super().__init__(name, credential, address, stream_usage=stream_usage, responses_url=responses_url)
        self._endpoint, self._by_identity = endpoint, by_identity

    async def check(self, target: Target) -> None:
        """The list of models does not tell which are deployed. A request without messages does: it gets as far as the
        deployment, and is refused before a model is asked."""
        await self._credential.headers()  # raises what the credential has to say, which no role mends
        try:
            body = to_json({"model": target.model, "messages": []})
            await self._http.read(await self._post(self._address(target, CHAT), body))
        except BadRequest:
            return
        except NotFound as error:
            raise NotFound(f"{error} {self._deploy(target.model)}") from None
        except Unauthorized as error:
            raise Unauthorized(f"{error} {self._let_in()}") from None

    def _deploy(self, model: str) -> str:
        return (
            f'{self._endpoint} has no deployment "{model}": create it (az cognitiveservices account deployment create '
            f"--resource-group GROUP --name {self._account} --deployment-name {model} --model-format OpenAI "
            "--model-name MODEL --model-version VERSION --sku-name GlobalStandard --sku-capacity 50), or name one that "
            "there is as the target's model"
        )

    def _let_in(self) -> str:
        if not self._by_identity:
            return 'Set its secret to a key of the account, or use auth = "identity" where keys are off'
        return (
            f'Give the identity the role "{ROLE}" on {self._endpoint} (az role assignment create --role "{ROLE}" '
            f"--assignee IDENTITY --scope $(az cognitiveservices account show --resource-group GROUP "
            f"--name {self._account} --query id --output tsv)); a new role is known everywhere after some minutes"
        )

    @property
    def _account(self) -> str:
        """By its address: the name and the first part of the address are the same, unless somebody chose otherwise."""
        return (self._endpoint.host or "").split(".")[0]


def build(name: str, settings: AzureOpenAISettings, credential: Credential) -> Provider:
    native = settings.responses and settings.api_version is None
    return AzureOpenAI(
        name,
        credential,
        _address(settings),
        endpoint=settings.endpoint,
        by_identity=settings.auth == "identity",
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
