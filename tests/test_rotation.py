"""The router with a vault: keys are rotated under load, and a slow vault holds up only those who need it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.providers import StandIn
from local.standin_behaviour import Fault
from tests import standin_vault
from tests.azure_world import world
from tests.certificates import World
from tests.conftest import LoopThread, ServeApp
from tests.routes_for import CHAT, CHAT_PATH, KEY, PROVIDER_KEY, Stage, routes_for
from tests.standin_vault import Fault as Refusal
from tests.standin_vault import Vault

__all__ = ["world"]
WORKERS = 16


class Site:
    """A router whose secrets are in a vault."""

    def __init__(self, stage: Stage, vault: Vault, serve_app: ServeApp, loop: LoopThread, folder: Path) -> None:
        self.stage, self.vault = stage, vault
        self._serve_app, self._loop, self._folder = serve_app, loop, folder

    def serve(self, *standins: StandIn, read_seconds: float = 5, by_identity: bool = False, **tables: Any) -> None:
        path, text = self._folder / "routes.toml", routes_for(standins, **tables)
        if by_identity:
            text = text.replace('"key" = "env:ROUTER_TEST_PROVIDER"', '"auth" = "identity"')
        path.write_text(f"{text}secrets = {{read_seconds = {read_seconds}}}\n")
        environment = {"ROUTER_CONFIG": str(path), "ROUTER_TEST_CALLER": KEY, "ROUTER_TEST_PROVIDER": PROVIDER_KEY}
        self.stage.url = self._serve_app({**environment, **self.vault.environment()})

    def ask(self, key: str = KEY) -> httpx.Response:
        with self.stage.http(headers={"authorization": f"Bearer {key}"}) as client:
            return client.post(CHAT_PATH, json=CHAT)

    def vault_answers(self, does: bool) -> None:
        async def change() -> None:
            (self.vault.open_.set if does else self.vault.open_.clear)()

        self._loop.run(change())


@pytest.fixture
def site(stage: Stage, serve_app: ServeApp, hosts_loop: LoopThread, world: World, tmp_path: Path) -> Iterator[Site]:
    stack = AsyncExitStack()
    with world.pretended(standin_vault.NAME):
        serving = standin_vault.serving(world.server(standin_vault.NAME))
        yield Site(stage, hosts_loop.run(stack.enter_async_context(serving)), serve_app, hosts_loop, tmp_path)
        hosts_loop.run(stack.aclose())


def in_vault(*names: str) -> dict[str, Mapping[str, str]]:
    return {name: {"key": f"keyvault:{name}-key"} for name in names}


def ask_meanwhile(site: Site, turns: Mapping[int, Callable[[], None]], total: int) -> list[int]:
    """The statuses of `total` requests, WORKERS at a time, every other one streamed; `turns` after so many answers."""
    statuses: list[int] = []
    numbers = itertools.count()

    async def work(client: httpx.AsyncClient) -> None:
        while (number := next(numbers)) < total:
            answer = await client.post(CHAT_PATH, json={**CHAT, "stream": bool(number % 2)})
            statuses.append(answer.status_code if b'"error"' not in answer.content else -1)
            if turn := turns.get(len(statuses)):
                turn()

    async def load() -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=site.stage.url, headers=headers, timeout=20, trust_env=False) as client:
            await asyncio.gather(*(work(client) for _ in range(WORKERS)))

    asyncio.run(load())
    return statuses


@pytest.mark.parametrize(
    ("fault", "mends"),
    [
        (Refusal(403, "Forbidden", "ForbiddenByRbac"), 'give the identity the role "Key Vault Secrets User"'),
        (None, "az keyvault secret set"),
    ],
    ids=["no role", "no secret"],
)
def test_while_nobodys_key_can_be_read_whoever_asks_is_told_why(site: Site, fault: Refusal | None, mends: str) -> None:
    site.vault.fault = fault
    site.serve(site.stage.standin("openai"), callers={"owner": {"key": "keyvault:router-key", "role": "admin"}})
    with site.stage.http(headers={"authorization": "Bearer sk-owner"}) as client:
        answer = client.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        [check] = answer.json()["checks"]
        assert (check["name"], check["ok"]) == ("keyvault:router-key", False)
        assert mends in check["detail"]
    with site.stage.http(headers={}) as client:
        assert "checks" not in client.get("/ready").json()


def test_a_providers_key_is_rotated_under_load_without_one_failed_request(site: Site) -> None:
    """The old key dies at the very moment when the new one is there."""
    standin = site.stage.standin("openai", keys=("sk-1",))
    site.vault.put("openai-key", "sk-1")
    site.serve(standin, providers=in_vault("openai"), route={"retry": {"retries": 0}})

    def rotate(key: str) -> Callable[[], None]:
        def turn() -> None:
            site.vault.put("openai-key", key)
            standin.behave(keys=(key,))

        return turn

    statuses = ask_meanwhile(site, {100: rotate("sk-2"), 250: rotate("sk-3")}, 400)
    assert statuses == [200] * 400
    assert 3 <= len(site.vault.reads) <= 1 + 2 * WORKERS


def test_a_key_that_stays_refused_is_read_anew_once_and_then_the_target_is_left_alone(site: Site) -> None:
    bad, good = site.stage.standin("openai", "bad", keys=("sk-other",)), site.stage.standin("openai", "good")
    site.vault.put("bad-key", "sk-1")
    site.serve(bad, good, providers=in_vault("bad"))
    answers = [site.ask() for _ in range(5)]
    assert [answer.headers["x-router-target"] for answer in answers] == ["good"] * 5
    assert answers[0].headers["x-router-attempts"] == "3"
    assert (len(bad.requests), len(site.vault.reads)) == (2, 2)


def test_a_cold_start_with_a_slow_vault_answers_those_who_do_not_need_it(site: Site) -> None:
    site.vault_answers(False)
    site.vault.put("other-key", "sk-other")
    callers = {"tester": {"key": "env:ROUTER_TEST_CALLER"}, "other": {"key": "keyvault:other-key"}}
    free, slow = site.stage.standin("openai", "free"), site.stage.standin("openai", "slow")
    site.serve(free, slow, providers=in_vault("slow"), callers=callers)
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(site.ask("sk-other")))
    waiting.start()
    started = time.monotonic()
    assert site.ask().headers["x-router-target"] == "free"
    assert time.monotonic() - started < 2.5
    assert waiting.is_alive()
    site.vault_answers(True)
    waiting.join(10)
    assert [answer.status_code for answer in answers] == [200]


def test_while_keys_cannot_be_read_an_unknown_key_is_asked_to_come_again(site: Site) -> None:
    site.vault_answers(False)
    site.vault.put("other-key", "sk-other")
    callers = {"tester": {"key": "env:ROUTER_TEST_CALLER"}, "other": {"key": "keyvault:other-key"}}
    site.serve(site.stage.standin("openai"), callers=callers, read_seconds=0.2)
    answer = site.ask("sk-other")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "callers_unavailable")
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("2", "true")
    site.vault_answers(True)
    deadline = time.monotonic() + 5  # the router leaves the vault alone for a second
    while (answer := site.ask("sk-other")).status_code == 503 and time.monotonic() < deadline:
        continue
    assert answer.status_code == 200
    assert site.ask("sk-unknown").status_code == 401


def test_a_provider_whose_key_cannot_be_had_is_passed_over(site: Site) -> None:
    bad, good = site.stage.standin("openai", "bad"), site.stage.standin("openai", "good")
    site.serve(bad, good, providers=in_vault("bad"))
    answer = site.ask()
    assert (answer.status_code, answer.headers["x-router-target"]) == (200, "good")
    assert bad.requests == []


def test_azure_openai_is_asked_with_the_identitys_token_and_again_with_a_new_one(site: Site) -> None:
    standin = site.stage.standin("azure_openai")
    site.serve(standin, by_identity=True)
    assert site.ask().status_code == 200
    (first,) = site.vault.good
    assert standin.requests[0].asked.headers["authorization"] == f"Bearer {first}"
    standin.fail(Fault("unauthorized"))
    assert site.ask().status_code == 200
    assert standin.requests[-1].asked.headers["authorization"] == f"Bearer {next(iter(site.vault.good - {first}))}"
    assert {asked["resource"] for asked in site.vault.asked} == {"https://cognitiveservices.azure.com"}


def test_without_a_token_azure_openai_is_passed_over(site: Site) -> None:
    site.vault.identity_faults.extend([400] * 20)
    azure, other = site.stage.standin("azure_openai", "azure"), site.stage.standin("ollama", "other")
    site.serve(azure, other, by_identity=True)
    answer = site.ask()
    assert (answer.status_code, answer.headers["x-router-target"]) == (200, "other")
    assert azure.requests == []
