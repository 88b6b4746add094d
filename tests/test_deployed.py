"""What the templates set makes the app work: their app settings and routes files, with stand-ins at the addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from routing import wiring
from tests import standin_signalr, standin_vault
from tests.azure_world import world
from tests.certificates import World
from tests.conftest import LoopThread, ServeApp
from tests.ingestion import Ingestion, serving
from tests.routes_for import HELLO, Stage
from tests.standin_signalr import SignalR
from tests.standin_vault import CLIENT_ID, Vault
from tests.test_infra import settings

__all__ = ["world"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:'locale.getdefaultlocale' is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),
]
KEY = "sk-of-the-owner"
REGIONS = {"routes.azure.toml": ["east"], "routes.azure-regions.toml": ["east", "second"]}
MODELS = ("gpt-5-mini", "gpt-5-nano")


class Group:
    """A resource group, as the app meets it."""

    def __init__(self, stage: Stage, vault: Vault, signalr: SignalR, insights: Ingestion, tables: str) -> None:
        self.stage, self.vault, self.signalr, self.insights, self.tables = stage, vault, signalr, insights, tables

    def settings(self, routes_file: str, accounts: list[str]) -> dict[str, str]:
        """Those of infra/modules/app.bicep, and what the platform adds."""
        first, second = [*accounts, ""][:2]
        given = settings(
            routesFile=routes_file,
            identityClientId=CLIENT_ID,
            tablesEndpoint=self.tables,
            vaultUri=self.vault.url,
            telemetry="opencensus",
            insightsConnection=self.insights.connection_string,
            openAiEndpoint=first,
            openAiSecondEndpoint=second,
            signalREndpoint=self.signalr.url,
        )
        identity = {name: value for name, value in self.vault.environment().items() if name.startswith("IDENTITY_")}
        return {name: str(value) for name, value in given.items()} | identity

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        with self.stage.http(headers={"authorization": f"Bearer {KEY}"}) as client:
            return client.request(method, path, json=body)


@pytest.fixture
def group(stage: Stage, hosts_loop: LoopThread, world: World, azurite: str) -> Iterator[Group]:
    stack = AsyncExitStack()
    with world.pretended(standin_vault.NAME), serving() as insights:
        opened = standin_vault.serving(world.server(standin_vault.NAME))
        vault = hosts_loop.run(stack.enter_async_context(opened))
        signalr = hosts_loop.run(stack.enter_async_context(standin_signalr.serving(lambda token: token in vault.good)))
        yield Group(stage, vault, signalr, insights, azurite)
        hosts_loop.run(wiring.forget())  # while everything that it says goodbye to is there
        hosts_loop.run(stack.aclose())


@pytest.mark.parametrize(("routes_file", "regions"), REGIONS.items(), ids=REGIONS)
def test_a_deployment_lacks_nothing_and_answers(
    group: Group, serve_app: ServeApp, routes_file: str, regions: list[str]
) -> None:
    group.vault.put("router-key", KEY)
    accounts = [group.stage.standin("azure_openai", region, models=MODELS) for region in regions]
    group.stage.url = serve_app(group.settings(routes_file, [account.url for account in accounts]))
    answer = group.ask("POST", "/v1/chat/completions", {"model": "auto", "messages": HELLO})
    assert answer.status_code == 200
    assert sum(account.asked for account in accounts) == 1
    ready = group.ask("GET", "/ready").json()
    assert (ready["status"], [check for check in ready["checks"] if not check["ok"]]) == ("ready", [])
    assert len(ready["checks"]) == 4 + 2 * len(
        accounts
    )  # telemetry, table, signalr, the key; each model of each account
    assert {query["client_id"] for query in group.vault.asked} == {CLIENT_ID}


def test_the_second_region_answers_while_the_first_one_is_down(group: Group, serve_app: ServeApp) -> None:
    group.vault.put("router-key", KEY)
    first, second = (group.stage.standin("azure_openai", region, models=MODELS) for region in ("east", "second"))
    first.behave(keys=("another",))  # as while its role is missing
    group.stage.url = serve_app(group.settings("routes.azure-regions.toml", [first.url, second.url]))
    for _ in range(4):
        assert group.ask("POST", "/v1/chat/completions", {"model": "auto", "messages": HELLO}).status_code == 200
    refused = [check for check in group.ask("GET", "/ready").json()["checks"] if not check["ok"]]
    assert [check["name"] for check in refused] == ["provider azure: gpt-5-mini", "provider azure: gpt-5-nano"]
    assert all('"Cognitive Services OpenAI User"' in check["detail"] for check in refused)


def test_a_deployment_without_the_models_names_them(group: Group, serve_app: ServeApp) -> None:
    group.vault.put("router-key", KEY)
    account = group.stage.standin("azure_openai", "east", models=("another",))
    group.stage.url = serve_app(group.settings("routes.azure.toml", [account.url]))
    missing = [check for check in group.ask("GET", "/ready").json()["checks"] if not check["ok"]]
    assert [check["name"] for check in missing] == [f"provider azure: {model}" for model in MODELS]
    assert all("az cognitiveservices account deployment create" in check["detail"] for check in missing)
