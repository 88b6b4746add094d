"""Pages that listen hear what happens to a target's breaker, by way of SignalR; requests do not wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.standin_behaviour import Fault
from routing import wiring
from tests import standin_signalr, standin_vault
from tests.azure_world import world
from tests.certificates import World
from tests.conftest import LoopThread, ServeApp
from tests.routes_for import KEY, ONCE, PROVIDER_KEY, Stage, routes_for
from tests.standin_signalr import SignalR
from tests.standin_vault import Vault

__all__ = ["world"]
NEGOTIATE = "/v1/router/notices/negotiate"
ADMIN = {"tester": {"key": "env:ROUTER_TEST_CALLER", "role": "admin"}}


class Hall:
    """A router with an identity, a SignalR service, and one target that fails."""

    def __init__(self, stage: Stage, vault: Vault, service: SignalR) -> None:
        self.stage, self.vault, self.service = stage, vault, service

    def negotiate(self, **headers: str) -> httpx.Response:
        given = headers or {"authorization": f"Bearer {KEY}"}
        with self.stage.http(headers=given) as client:
            return client.post(f"{NEGOTIATE}?negotiateVersion=1")

    def check(self) -> dict[str, Any]:
        with self.stage.http() as client:
            checks = client.get("/ready").json()["checks"]
        return next(check for check in checks if check["name"] == "signalr")


@pytest.fixture
def hall(stage: Stage, serve_app: ServeApp, hosts_loop: LoopThread, world: World, tmp_path: Path) -> Iterator[Hall]:
    stack, path = AsyncExitStack(), tmp_path / "routes.toml"
    with world.pretended(standin_vault.NAME):
        serving = standin_vault.serving(world.server(standin_vault.NAME))
        vault = hosts_loop.run(stack.enter_async_context(serving))
        service = hosts_loop.run(stack.enter_async_context(standin_signalr.serving(lambda token: token in vault.good)))
        failing = stage.standin(name="one", fault=Fault("status", status=503))
        path.write_text(routes_for([failing], route={"retry": ONCE}, callers=ADMIN))
        keys = {"ROUTER_TEST_CALLER": KEY, "ROUTER_TEST_PROVIDER": PROVIDER_KEY}
        settings = {"ROUTER_CONFIG": str(path), "ROUTER_SIGNALR": f"{service.url}/"}
        stage.url = serve_app({**settings, **keys, **vault.environment()})
        yield Hall(stage, vault, service)
        hosts_loop.run(wiring.forget())  # while everything that it says goodbye to is there
        hosts_loop.run(stack.aclose())


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def open_the_breaker(hall: Hall) -> None:
    for _ in range(5):
        hall.stage.ask()


def test_a_client_is_sent_to_the_service_with_a_token_of_its_own(hall: Hall) -> None:
    answer = hall.negotiate()
    assert answer.json() == {"url": f"{hall.service.url}/client/?hub=router", "accessToken": "for-tester"}
    [(path, query)] = hall.service.asked
    assert path == "/api/hubs/router/:generateToken"
    assert (query["userId"], query["minutesToExpire"]) == ("tester", "60")
    assert hall.vault.asked[-1]["resource"] == "https://signalr.azure.com"


def test_many_clients_at_once_are_sent_there_over_one_set_of_connections(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[httpx.AsyncClient] = []
    real = httpx.AsyncClient

    def counted(**options: Any) -> httpx.AsyncClient:
        opened.append(real(**options))
        return opened[-1]

    monkeypatch.setattr(httpx, "AsyncClient", counted)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: hall.negotiate().status_code, range(8)))
    assert answers == [200] * 8
    assert len(opened) == 1


def test_nobody_listens_without_a_key(hall: Hall) -> None:
    assert hall.negotiate(authorization="Bearer wrong").status_code == 401
    assert hall.service.asked == []


def test_clients_hear_that_a_breaker_opened(hall: Hall) -> None:
    open_the_breaker(hall)
    until(lambda: bool(hall.service.sent))
    told = hall.service.sent[0]
    assert told["target"] == "breaker"
    [notice] = told["arguments"]
    assert (notice["target"], notice["event"]) == ("one", "opened")
    assert abs(notice["at"] - time.time()) < 60


def test_a_token_that_is_refused_is_asked_for_anew(hall: Hall) -> None:
    assert hall.negotiate().status_code == 200
    hall.vault.good.clear()
    assert hall.negotiate().status_code == 200
    assert len(hall.vault.given) == 2


@pytest.mark.parametrize("status", [403, 404, 500])
def test_requests_go_on_while_the_service_fails_and_clients_are_asked_to_come_again(hall: Hall, status: int) -> None:
    hall.service.status = status
    open_the_breaker(hall)
    until(lambda: any(path.endswith(":send") for path, _ in hall.service.asked))
    assert hall.stage.ask().status_code == 503
    answer = hall.negotiate()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "notices_unavailable")
    assert hall.service.url not in answer.text


def test_an_admin_sees_which_role_is_missing(hall: Hall) -> None:
    assert hall.check() == {"name": "signalr", "ok": True, "detail": ""}
    hall.service.status = 403
    assert 'give the identity the role "SignalR REST API Owner"' in hall.check()["detail"]


def test_without_a_service_there_is_nothing_to_listen_to(stage: Stage) -> None:
    stage.serve(stage.standin())
    with stage.http() as client:
        answer = client.post(NEGOTIATE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_notices")
