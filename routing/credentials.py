"""Which secret goes where: the router's own credentials at each provider, and the keys its callers come with."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from routing.config import Config
from routing.errors import Unauthorized
from routing.providers.azure_openai import AzureOpenAISettings
from routing.providers.base import Credential, KeyCredential, NoCredential
from routing.routes_file import AnyProvider
from routing.secrets import UNRESOLVED, Secrets, SecretUnavailable, checked
from routing.types import Caller

_log = logging.getLogger(__name__)
COGNITIVE_SERVICES = "https://cognitiveservices.azure.com/.default"
VAULT = "ROUTER_KEY_VAULT"  # the app setting with the vault's address


class Identity(Protocol):
    async def token(self, scope: str, *, fresh: bool = False) -> str: ...


def credential(settings: AnyProvider, header: tuple[str, str], secrets: Secrets, identity: Identity) -> Credential:
    """What the provider is shown: a token of the router's identity, a key in `header` (name, prefix), or nothing."""
    if isinstance(settings, AzureOpenAISettings) and settings.auth == "identity":
        return KeyCredential("authorization", "Bearer ", _token(identity))
    if settings.key is None:
        return NoCredential()
    return KeyCredential(*header, _secret(settings.key, secrets))


def caller_keys(loaded: Config) -> dict[str, Caller]:
    """Each secret reference that is a caller's key, with its caller."""
    callers = loaded.file.callers
    return {key: loaded.callers[name] for name, settings in callers.items() for _, key in settings.references()}


def caller_roles(loaded: Config) -> dict[str, Caller]:
    """Each app role of Entra tokens, with the caller it stands for."""
    roles = loaded.file.entra.roles if loaded.file.entra else {}
    return {role: loaded.callers[name] for role, name in roles.items()}


def unusable(loaded: Config, environment: Mapping[str, str]) -> Iterator[str]:
    """References that cannot lead to a secret, whatever the vault says, or lead two callers to one."""
    if VAULT in environment and (wrong := _not_a_vault(environment[VAULT])):
        yield f"the app setting {VAULT}: {wrong}"
    for path, reference in loaded.references():
        source, _, name = reference.partition(":")
        if source == "env" and name in environment and (wrong := _no_secret(environment[name], name)):
            yield f"{path}: {wrong}"
        if source == "keyvault" and VAULT not in environment:
            yield f"{path}: {reference} needs the app setting {VAULT}, the vault's https address"
    yield from _shared(loaded, environment)


def _shared(loaded: Config, environment: Mapping[str, str]) -> Iterator[str]:
    """App settings that hold the key of another caller: nobody could tell who asks."""
    owners: dict[str, str] = {}
    for name, settings in loaded.file.callers.items():
        for place, reference in settings.references():
            source, _, setting = reference.partition(":")
            value = environment.get(setting, "").strip() if source == "env" else ""
            if value and owners.setdefault(value, name) != name:
                yield f"callers.{name}.{place}: the app setting {setting} holds the key of the caller {owners[value]}"


def _no_secret(value: str, name: str) -> str | None:
    try:
        checked(value, f"the app setting {name}")
    except SecretUnavailable as error:
        return str(error)
    return None


def _not_a_vault(address: str) -> str | None:
    if address.startswith(UNRESOLVED):
        return "is a Key Vault reference that the platform could not resolve"
    try:
        parts = urlsplit(address.strip())
        host = re.fullmatch(r"[\w.-]+", parts.hostname or "", re.ASCII)
        named = host is not None and parts.port != 0 and parts.username is None and parts.path in ("", "/")
    except ValueError:
        named = False
    if not named or parts.scheme != "https" or parts.query or parts.fragment:
        return "must be the vault's https address, like https://NAME.vault.azure.net"
    return None


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
            return await identity.token(COGNITIVE_SERVICES, fresh=fresh)
        except SecretUnavailable as error:
            _log.error("The router's identity gives no token: %s", error)
            raise Unauthorized("The router has no token for the provider.") from None

    return read
