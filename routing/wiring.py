"""Builds the app, once per process and at the first request: a refused routes file is shown, it crashes nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from routing import config, custom, pricing
from routing.background import Background
from routing.breaker_state import BreakerSettings
from routing.callers import Callers
from routing.cloud import worker
from routing.cloud.identity import Identity
from routing.cloud.keyvault import KeyVault
from routing.cloud.tables import TableStore
from routing.config import Config
from routing.credentials import VAULT, caller_keys, caller_roles, credential, unusable
from routing.custom import Custom
from routing.decisions import Decisions
from routing.entra import EntraTokens
from routing.errors import Misconfigured
from routing.health import Health
from routing.planner import Planner
from routing.providers import anthropic, azure_openai, ollama, openai
from routing.providers.anthropic import AnthropicSettings
from routing.providers.azure_openai import AzureOpenAISettings
from routing.providers.base import Provider
from routing.providers.ollama import OllamaSettings
from routing.router import Router
from routing.routes_file import AnyProvider
from routing.secrets import Read, Secrets, from_environment
from routing.store import Store

_log = logging.getLogger(__name__)
STATE_TABLE = "RouterState"
COGNITIVE_SERVICES = "https://cognitiveservices.azure.com/.default"


@dataclass(frozen=True, slots=True)
class App:
    """All that a request meets."""

    config: Config
    router: Router
    callers: Callers
    health: Health
    decisions: Decisions
    providers: Mapping[str, Provider]
    store: Store | None
    secrets: Secrets
    planner: Planner
    background: Background
    resources: AsyncExitStack  # closed last: what reads secrets and tokens
    clock: Callable[[], float] = time.time  # epoch seconds

    async def aclose(self) -> None:
        """Lets go of everything, after the work under way."""
        await self.background.drain()
        await self.health.close()
        for provider in self.providers.values():
            await provider.aclose()
        await self.resources.aclose()


class _Built:
    """The one app of the process, or the reason why there is none."""

    def __init__(self) -> None:
        self.app: App | None = None
        self.refused: Misconfigured | None = None


_built = _Built()


async def current() -> App:
    """The app, built at the first call. Raises Misconfigured each time when its configuration is refused."""
    if _built.app is not None:
        return _built.app
    worker.install()
    if _built.refused is not None:
        raise Misconfigured(_built.refused.errors)
    try:
        _built.app = build(os.environ)
    except Misconfigured as error:
        _built.refused = error
        raise
    await _built.app.health.warm()
    return _built.app


async def forget() -> None:
    """Closes the app; the next request builds another. For a process that ends, and for tests."""
    app, _built.app, _built.refused = _built.app, None, None
    if app is not None:
        await app.aclose()


def build(environment: Mapping[str, str]) -> App:
    """The app that an environment describes. Raises Misconfigured."""
    root = Path(__file__).parent.parent
    loaded = config.load(root / environment.get("ROUTER_CONFIG", "routes.toml"), environment)
    strategies, errors = custom.load(loaded)
    if errors := [*errors, *unusable(loaded, environment)]:
        raise Misconfigured(errors)
    resources = AsyncExitStack()
    identity = Identity(environment)
    resources.push_async_callback(identity.aclose)
    secrets = Secrets(_readers(environment, identity, resources), time.monotonic, loaded.file.secrets)
    resources.push_async_callback(secrets.aclose)
    background = Background()
    providers = {name: _provider(name, settings, secrets, identity) for name, settings in loaded.file.providers.items()}
    store = _store(environment, identity)
    health = Health(_breakers(loaded), store, settings=loaded.file.health)
    decisions = Decisions()
    planner = Planner(loaded, health, pricing.bundled, Custom(strategies))
    router = Router(loaded, providers, health, planner, decisions, background)
    callers = Callers(caller_keys(loaded), secrets, _tokens(loaded, resources))
    return App(loaded, router, callers, health, decisions, providers, store, secrets, planner, background, resources)


def _readers(environment: Mapping[str, str], identity: Identity, resources: AsyncExitStack) -> dict[str, Read]:
    readers = {"env": from_environment(environment)}
    if VAULT in environment:
        vault = KeyVault(environment[VAULT].strip(), identity)
        resources.push_async_callback(vault.aclose)
        readers["keyvault"] = vault.read
    return readers


def _tokens(loaded: Config, resources: AsyncExitStack) -> EntraTokens | None:
    if loaded.file.entra is None:
        return None
    tokens = EntraTokens(loaded.file.entra, caller_roles(loaded))
    resources.push_async_callback(tokens.aclose)
    return tokens


def _store(environment: Mapping[str, str], identity: Identity) -> Store | None:
    """Where instances share what they know; None keeps it to this process, as on a laptop without Azurite."""
    account = environment.get("ROUTER_TABLES")
    return TableStore(account, STATE_TABLE, identity.credential) if account else None


def _breakers(loaded: Config) -> dict[str, BreakerSettings]:
    return {name: target.breaker or loaded.file.breaker for name, target in loaded.file.targets.items()}


def _provider(name: str, settings: AnyProvider, secrets: Secrets, identity: Identity) -> Provider:
    if isinstance(settings, AzureOpenAISettings):
        return azure_openai.build(name, settings, credential(settings, azure_openai.KEY_HEADER, secrets, identity))
    if isinstance(settings, AnthropicSettings):
        return anthropic.build(name, settings, credential(settings, anthropic.KEY_HEADER, secrets, identity))
    if isinstance(settings, OllamaSettings):
        return ollama.build(name, settings, credential(settings, ollama.KEY_HEADER, secrets, identity))
    return openai.build(name, settings, credential(settings, openai.KEY_HEADER, secrets, identity))
