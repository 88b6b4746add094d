"""Builds the app, once per process and at the first request: a refused routes file is shown, it crashes nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from routing import config
from routing.background import Background
from routing.breaker_state import BreakerSettings
from routing.callers import Callers
from routing.cloud import worker
from routing.cloud.identity import Identity, IdentityUnavailable
from routing.cloud.keyvault import KeyVault, VaultUnavailable
from routing.cloud.tables import TableStore
from routing.config import AnyProvider, Config
from routing.errors import Misconfigured, Unauthorized
from routing.health import Health
from routing.providers import azure_openai, ollama, openai
from routing.providers.azure_openai import AzureOpenAISettings
from routing.providers.base import Credential, KeyCredential, NoCredential, Provider
from routing.providers.ollama import OllamaSettings
from routing.router import Router
from routing.secrets import UNRESOLVED, Read, Secrets, SecretSettings, SecretUnavailable, from_environment
from routing.store import Store
from routing.types import Caller

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
    providers: Mapping[str, Provider]
    background: Background
    clock: Callable[[], float] = time.time  # epoch seconds

    async def aclose(self) -> None:
        """Lets go of everything, after the work under way."""
        await self.background.drain()
        await self.health.close()
        for provider in self.providers.values():
            await provider.aclose()


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
    if errors := list(_unresolved(loaded, environment)):
        raise Misconfigured(errors)
    identity = Identity(environment.get("AZURE_CLIENT_ID"))
    secrets = Secrets(_readers(environment, identity), time.monotonic, SecretSettings())
    background = Background()
    providers = {name: _provider(name, settings, secrets, identity) for name, settings in loaded.file.providers.items()}
    health = Health(_breakers(loaded), _store(environment, identity), settings=loaded.file.health)
    callers = Callers({who.key: Caller(name, who.role) for name, who in loaded.file.callers.items()}, secrets)
    return App(loaded, Router(loaded, providers, health, background), callers, health, providers, background)


def _readers(environment: Mapping[str, str], identity: Identity) -> dict[str, Read]:
    readers = {"env": from_environment(environment)}
    if vault_url := environment.get("ROUTER_KEY_VAULT"):
        vault = KeyVault(vault_url, identity)

        async def read(name: str) -> str:
            try:
                return await vault.read(name)
            except VaultUnavailable as error:
                raise SecretUnavailable(str(error)) from None

        readers["keyvault"] = read
    return readers


def _store(environment: Mapping[str, str], identity: Identity) -> Store | None:
    """Where instances share what they know; None keeps it to this process, as on a laptop without Azurite."""
    account = environment.get("ROUTER_TABLES")
    return TableStore(account, STATE_TABLE, identity.credential) if account else None


def _breakers(loaded: Config) -> dict[str, BreakerSettings]:
    return {name: target.breaker or loaded.file.breaker for name, target in loaded.file.targets.items()}


def _unresolved(loaded: Config, environment: Mapping[str, str]) -> Iterator[str]:
    """References that cannot lead to a secret, whatever the vault says."""
    for path, reference in loaded.references():
        source, _, name = reference.partition(":")
        if source == "env" and environment.get(name, "").startswith(UNRESOLVED):
            yield f"{path}: the app setting {name} is a Key Vault reference that the platform could not resolve"
        if source == "keyvault" and "ROUTER_KEY_VAULT" not in environment:
            yield f"{path}: {reference} needs the app setting ROUTER_KEY_VAULT, the vault's https address"


def _provider(name: str, settings: AnyProvider, secrets: Secrets, identity: Identity) -> Provider:
    if isinstance(settings, AzureOpenAISettings):
        return azure_openai.build(name, settings, _credential(settings, azure_openai.KEY_HEADER, secrets, identity))
    if isinstance(settings, OllamaSettings):
        return ollama.build(name, settings, _credential(settings, ollama.KEY_HEADER, secrets, identity))
    return openai.build(name, settings, _credential(settings, openai.KEY_HEADER, secrets, identity))


def _credential(settings: AnyProvider, header: tuple[str, str], secrets: Secrets, identity: Identity) -> Credential:
    if isinstance(settings, AzureOpenAISettings) and settings.auth == "identity":
        return KeyCredential("authorization", "Bearer ", _token(identity))
    if settings.key is None:
        return NoCredential()
    return KeyCredential(*header, _secret(settings.key, secrets))


def _secret(reference: str, secrets: Secrets) -> Callable[[bool], Awaitable[str]]:
    async def read(fresh: bool) -> str:
        try:
            return await secrets.get(reference, fresh=fresh)
        except SecretUnavailable as error:
            _log.error("A provider's key is missing: %s", error)
            raise Unauthorized("The router has no key for the provider.") from None

    return read


def _token(identity: Identity) -> Callable[[bool], Awaitable[str]]:
    async def read(fresh: bool) -> str:
        try:
            return await identity.token(COGNITIVE_SERVICES)
        except IdentityUnavailable as error:
            _log.error("The router's identity gives no token: %s", error)
            raise Unauthorized("The router has no token for the provider.") from None

    return read
