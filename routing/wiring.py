"""Builds the app, once per process and at the first request: a refused routes file is shown, it crashes nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from routing import config, custom, logs, pricing
from routing.archive import Archive
from routing.background import Background
from routing.bookkeeping import Bookkeeping
from routing.breaker_state import BreakerSettings
from routing.callers import Callers
from routing.cloud import monitor, worker
from routing.cloud.answer_table import AnswerTable
from routing.cloud.decision_table import DecisionTable
from routing.cloud.identity import Identity
from routing.cloud.keyvault import KeyVault
from routing.cloud.monitor import Monitor
from routing.cloud.signalr import SignalR
from routing.cloud.tables import TableStore
from routing.cloud.usage_table import UsageTable
from routing.config import Config
from routing.credentials import VAULT, caller_keys, caller_roles, credential, unusable
from routing.custom import Custom
from routing.decisions import Decisions
from routing.entra import EntraTokens
from routing.errors import Misconfigured
from routing.health import Health
from routing.ledger import Ledger
from routing.ledger_store import Nowhere, Rows
from routing.metering import rules_of
from routing.notices import Notices
from routing.planner import Planner
from routing.providers import anthropic, azure_openai, ollama, openai
from routing.providers.anthropic import AnthropicSettings
from routing.providers.azure_openai import AzureOpenAISettings
from routing.providers.base import Provider
from routing.providers.ollama import OllamaSettings
from routing.remembering import Remembering
from routing.router import Router
from routing.routes_file import AnyProvider
from routing.secrets import Read, Secrets, from_environment
from routing.shared_answers import SharedAnswers
from routing.sharing import Event
from routing.statistics import Statistics
from routing.store import Store
from routing.telemetry import Telemetry
from routing.telemetry_names import PROVIDERS
from routing.trace import GivenIds

if TYPE_CHECKING:
    from routing.recording import Place

_log = logging.getLogger(__name__)
STATE_TABLE = "RouterState"
USAGE_TABLE, DECISION_TABLE, ANSWER_TABLE = "RouterUsage", "RouterDecisions", "RouterAnswers"
COGNITIVE_SERVICES = "https://cognitiveservices.azure.com/.default"


@dataclass(frozen=True, slots=True)
class App:
    """All that a request meets."""

    config: Config
    router: Remembering
    callers: Callers
    health: Health
    decisions: Decisions
    providers: Mapping[str, Provider]
    store: Store | None
    secrets: Secrets
    planner: Planner
    background: Background
    bookkeeping: Bookkeeping
    telemetry: Telemetry
    sender: Monitor
    notices: Notices
    archive: Archive
    answers: SharedAnswers
    statistics: Statistics
    resources: AsyncExitStack  # closed last: what reads secrets and tokens
    clock: Callable[[], float] = time.time  # epoch seconds

    async def aclose(self) -> None:
        """Lets go of everything, after the work under way."""
        await self.background.drain()
        await self.bookkeeping.close()
        await self.archive.close()
        await self.answers.close()
        await self.health.close()
        for provider in self.providers.values():
            await provider.aclose()
        await self.resources.aclose()

    def hurry(self) -> None:
        """The process is about to end."""
        self.bookkeeping.hurry()
        self.archive.hurry()
        self.sender.hurry()


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
    worker.before_the_end(_built.app.hurry, forget)
    _built.app.sender.start()
    await asyncio.gather(_built.app.health.warm(), _built.app.bookkeeping.warm())
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
    if errors := [*errors, *unusable(loaded, environment), *_unsendable(environment)]:
        raise Misconfigured(errors)
    resources = AsyncExitStack()
    telemetry, sender = _telemetry(loaded, environment, resources)
    identity = Identity(environment)
    resources.push_async_callback(identity.aclose)
    secrets = Secrets(_readers(environment, identity, resources, telemetry), time.monotonic, loaded.file.secrets)
    resources.push_async_callback(secrets.aclose)
    background = Background()
    providers = {name: _provider(name, settings, secrets, identity) for name, settings in loaded.file.providers.items()}
    store = _store(environment, identity)
    notices = Notices(_hub(environment, identity, resources), background)
    health = Health(_breakers(loaded), store, tell=_both(telemetry, notices), settings=loaded.file.health)
    archive = Archive(_shelf(environment, identity), loaded.file.decisions)
    answers = SharedAnswers(_answers(loaded, environment, identity))
    statistics = Statistics(tuple(loaded.targets))
    decisions = Decisions(tell=(statistics.tell, archive.tell))
    planner = Planner(loaded, health, pricing.bundled, Custom(strategies))
    ledger, bookkeeping = _ledger(loaded, environment, identity)
    router = Router(loaded, providers, health, planner, decisions, background, ledger=ledger)
    callers = Callers(caller_keys(loaded), secrets, _tokens(loaded, resources))
    return App(
        loaded,
        Remembering(router, loaded, decisions, shared=answers),
        callers,
        health,
        decisions,
        providers,
        store,
        secrets,
        planner,
        background,
        bookkeeping,
        telemetry,
        sender,
        notices,
        archive,
        answers,
        statistics,
        resources,
    )


def _telemetry(loaded: Config, environment: Mapping[str, str], resources: AsyncExitStack) -> tuple[Telemetry, Monitor]:
    """What is told, and who sends it; closed after everything that has something to tell."""
    kind, settings = monitor.chosen(environment), loaded.file.telemetry
    telemetry = Telemetry(kind != "none", settings)

    def connect(tracers: Any, meters: Any, logging_: Any, ids: GivenIds) -> monitor.Recorder:
        from routing.recording import Recorder  # OpenTelemetry's API takes 20 ms to import

        return Recorder(tracers, meters, logging_, ids, _places(loaded), lambda: telemetry.lost)

    times = {"interval": settings.interval_seconds, "metrics_interval": settings.metrics_seconds}
    sender = Monitor(kind, environment, telemetry, connect, **times)
    resources.push_async_callback(sender.close)
    resources.callback(logs.install(telemetry.tell if settings.logs else None))
    return telemetry, sender


def _unsendable(environment: Mapping[str, str]) -> list[str]:
    try:
        monitor.chosen(environment)
    except ValueError as error:
        return [str(error)]
    return []


def _places(loaded: Config) -> dict[str, Place]:
    """Where each target is."""
    from routing.recording import Place

    places = {}
    for name, target in loaded.targets.items():
        settings = loaded.file.providers[target.provider]
        url = settings.endpoint if isinstance(settings, AzureOpenAISettings | OllamaSettings) else settings.base_url
        places[name] = Place(PROVIDERS[settings.type], target.model, url.host or "", url.port or 0)
    return places


def _hub(environment: Mapping[str, str], identity: Identity, resources: AsyncExitStack) -> SignalR | None:
    """Where pages hear notices; None without a SignalR service."""
    endpoint = environment.get("ROUTER_SIGNALR")
    if not endpoint:
        return None
    hub = SignalR(endpoint, identity)
    resources.push_async_callback(hub.aclose)
    return hub


def _both(telemetry: Telemetry, notices: Notices) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        telemetry.tell(event)
        notices.tell(event)

    return tell


def _shelf(environment: Mapping[str, str], identity: Identity) -> DecisionTable | None:
    account = environment.get("ROUTER_TABLES")
    return DecisionTable(account, DECISION_TABLE, identity.credential) if account else None


def _answers(loaded: Config, environment: Mapping[str, str], identity: Identity) -> AnswerTable | None:
    """Where routes with `cache = { shared = true }` share their answers."""
    account, settings = environment.get("ROUTER_TABLES"), [each.cache for each in loaded.file.routes.values()]
    shared = any(each and each.shared for each in settings)
    return AnswerTable(account, ANSWER_TABLE, identity.credential) if account and shared else None


def _readers(
    environment: Mapping[str, str], identity: Identity, resources: AsyncExitStack, telemetry: Telemetry
) -> dict[str, Read]:
    readers = {"env": from_environment(environment)}
    if VAULT in environment:
        vault = KeyVault(environment[VAULT].strip(), identity)
        resources.push_async_callback(vault.aclose)

        async def read(name: str) -> str:
            value = await vault.read(name)
            telemetry.refreshed(name)
            return value

        readers["keyvault"] = read
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


def _ledger(loaded: Config, environment: Mapping[str, str], identity: Identity) -> tuple[Ledger, Bookkeeping]:
    account, settings = environment.get("ROUTER_TABLES"), loaded.file.ledger
    rows: Rows = UsageTable(account, USAGE_TABLE, identity.credential) if account else Nowhere()

    def clock() -> float:
        return time.time() + rows.offset

    ledger = Ledger(rules_of(loaded), settings, clock, alone=not account)
    return ledger, Bookkeeping(ledger, rows, settings, clock)


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
