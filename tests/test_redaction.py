"""Known secrets go through every path, and none comes out: no header, body, log record, repr or telemetry has one."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.providers import StandIn
from local.standin_behaviour import FAULT_KINDS, Fault
from routing import wiring
from routing.cloud import insights, monitor
from routing.router import Router
from tests import ingestion, standin_issuer, standin_vault
from tests.azure_world import world
from tests.certificates import World
from tests.conftest import LoopThread, ServeApp
from tests.ingestion import Ingestion
from tests.routes_for import CHAT, CHAT_PATH, Stage, routes_for
from tests.standin_issuer import AUDIENCE, Issuer
from tests.standin_vault import HEADER, Vault

__all__ = ["world"]
pytestmark = [  # of a package that telemetry goes by
    pytest.mark.filterwarnings("ignore:'locale.getdefaultlocale' is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),
]
MARK = "s3cr3t"
CALLER, ADMIN = f"{MARK}-caller-key", f"{MARK}-admin-key"
PROVIDER, VAULTED, WRONG = f"{MARK}-provider-key", f"{MARK}-vaulted-key", f"{MARK}-wrong-key"


class Told(logging.Handler):
    """Every record of every logger, as a formatter with all details would write it."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        self.records.append(f"{record.getMessage()} {vars(record)!r} {trace}")


class Watch:
    """A router full of secrets, and everything that it lets out."""

    def __init__(
        self,
        stage: Stage,
        serve_app: ServeApp,
        forget: Callable[[], None],
        vault: Vault,
        issuer: Issuer,
        folder: Path,
        told: Told,
        endpoint: Ingestion,
    ) -> None:
        self.stage, self.vault, self.issuer, self.told, self.endpoint = stage, vault, issuer, told, endpoint
        self._serve_app, self._forget, self._path = serve_app, forget, folder / "routes.toml"
        self.exporter = "otlp"
        self.said: list[str] = []
        self.shown: list[str] = []  # secrets that have no mark
        vault.put("vaulted-key", VAULTED)

    def serve(self, *standins: StandIn, by_identity: bool = False) -> None:
        callers = {
            "tester": {"key": "env:ROUTER_TEST_CALLER"},
            "ops": {"key": "env:ROUTER_TEST_ADMIN", "role": "admin"},
        }
        text = routes_for(standins, callers=callers, providers={"vaulted": {"key": "keyvault:vaulted-key"}})
        if by_identity:
            text = text.replace('"key" = "env:ROUTER_TEST_PROVIDER"', '"auth" = "identity"')
        roles = 'roles = {"Router.Use" = "tester"}'
        entra = f'entra = {{issuer = "{self.issuer.url}", audience = ["{AUDIENCE}"], {roles}}}'
        telemetry = "telemetry = {interval_seconds = 0.05, metrics_seconds = 60, logs = true}"
        self.serve_text(f"{text}{entra}\n{telemetry}\n")

    def serve_text(self, text: str) -> None:
        self._path.write_text(text)
        keys = {"ROUTER_TEST_CALLER": CALLER, "ROUTER_TEST_ADMIN": ADMIN, "ROUTER_TEST_PROVIDER": PROVIDER}
        telemetry = {"ROUTER_TELEMETRY": self.exporter}
        self.stage.url = self._serve_app(
            {"ROUTER_CONFIG": str(self._path), **telemetry, **keys, **self.vault.environment()}
        )

    def request(self, method: str, path: str, key: str = CALLER, **options: Any) -> httpx.Response:
        with self.stage.http(headers={"authorization": f"Bearer {key}".encode()}) as client:
            answer = client.request(method, path, **options)
        self.said.append(f"{path} {answer.status_code} {answer.headers!r} {answer.text}")
        return answer

    def ask(self, key: str = CALLER, **fields: Any) -> httpx.Response:
        return self.request("POST", CHAT_PATH, key, json={**CHAT, **fields})

    def check(self) -> None:
        """Nothing that is secret was let out, and there was something to let out."""
        assert self.said
        assert len(self.told.records) > 5
        outputs = [*self.said, repr(wiring._built.app), repr(vars(wiring._built))]
        built = wiring._built.app is not None
        self._forget()  # which sends the telemetry that is left
        arrived = [f"{each.headers} {each.items}" for each in self.endpoint.arrived]
        assert bool(arrived) is built
        outputs += [*self.told.records, *arrived]
        secrets = [MARK, HEADER, *self.vault.given, *self.shown]
        leaks = [(secret, output) for output in outputs for secret in secrets if secret in output]
        assert leaks == []


@pytest.fixture
def told() -> Iterator[Told]:
    """Every logger at its most talkative; other tests' levels come back afterwards."""
    root, handler = logging.getLogger(), Told()
    talkative = [root, *(logging.getLogger(name) for name in ("azure", "routing", "aiohttp", "httpx", "msal"))]
    levels = [(logger, logger.level) for logger in talkative]
    for logger in talkative:
        logger.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for logger, level in levels:
        logger.setLevel(level)


@pytest.fixture
def watch(
    stage: Stage,
    serve_app: ServeApp,
    hosts_loop: LoopThread,
    world: World,
    tmp_path: Path,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Watch]:
    stack = AsyncExitStack()
    with world.pretended(standin_vault.NAME, standin_issuer.NAME), ingestion.serving() as endpoint:
        monkeypatch.setenv(monitor.CONNECTION, endpoint.connection_string)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.url)
        for name in insights.SILENT:
            monkeypatch.setenv(name, "true")  # and taken back afterwards
        vault = standin_vault.serving(world.server(standin_vault.NAME))
        issuer = standin_issuer.serving(world.server(standin_issuer.NAME))
        served = (hosts_loop.run(stack.enter_async_context(vault)), hosts_loop.run(stack.enter_async_context(issuer)))
        yield Watch(stage, serve_app, lambda: hosts_loop.run(wiring.forget()), *served, tmp_path, told, endpoint)
        hosts_loop.run(stack.aclose())


def test_success(watch: Watch) -> None:
    watch.serve(watch.stage.standin("openai", "vaulted"))
    for stream in (False, True):
        assert watch.ask(stream=stream).status_code == 200
    watch.check()


@pytest.mark.parametrize("exporter", [kind for kind in monitor.KINDS if kind != "none"])
def test_every_exporter(exporter: str, watch: Watch) -> None:
    """All that telemetry tells of: answers, failures with the provider's words, breakers, log lines, secrets read."""
    watch.exporter = exporter
    repeats = Fault("unauthorized", message=f"wrong key {VAULTED} {PROVIDER}")
    watch.serve(watch.stage.standin("openai", "vaulted", fault=repeats), watch.stage.standin("openai", "plain"))
    for stream in (False, True):
        assert watch.ask(stream=stream, metadata={"task_type": "planning"}).status_code == 200
    assert watch.ask(WRONG).status_code == 401
    assert watch.request("POST", CHAT_PATH, content=f'{{"model": "{WRONG[:3]}"}}'.encode()).status_code >= 400
    watch.check()


def test_every_other_endpoint(watch: Watch) -> None:
    watch.serve(watch.stage.standin("openai", "vaulted"), watch.stage.standin("openai", "plain"))
    watch.ask()
    for path in ("/", "/health", "/ready", "/v1/models", "/v1/models/chat", "/v1/router/status", "/v1/router/usage"):
        watch.request("GET", path, ADMIN)
    watch.request("POST", "/v1/router/explain", json=CHAT)
    watch.request("POST", "/v1/router/breakers/plain", ADMIN, json={"action": "isolate", "reason": "test"})
    watch.check()


def test_a_token_of_the_identity(watch: Watch) -> None:
    watch.serve(watch.stage.standin("azure_openai"), by_identity=True)
    assert watch.ask().status_code == 200
    watch.vault.identity_faults.extend([400] * 20)
    watch.ask(standin={"kind": "unauthorized"})
    watch.check()


def test_a_callers_token(watch: Watch) -> None:
    watch.serve(watch.stage.standin("openai", "vaulted"))
    good, expired = watch.issuer.token(), watch.issuer.token(exp=int(time.time()) - 600)
    without_role = watch.issuer.token(roles=[])
    assert [watch.ask(key).status_code for key in (good, expired, without_role)] == [200, 401, 403]
    watch.shown = [part for token in (good, expired, without_role) for part in token.split(".")[1:]]
    watch.check()


@pytest.mark.parametrize("kind", [kind for kind in FAULT_KINDS if kind not in ("hang", "slow_first_token", "stall")])
def test_a_provider_that_fails(kind: Any, watch: Watch) -> None:
    """What it says in its error is ours to keep: some repeat the key that they refuse."""
    repeats = None if kind in ("content_filter", "context_length_exceeded") else f"wrong key {VAULTED} {PROVIDER}"
    standins = [
        watch.stage.standin("openai", name, fault=Fault(kind, message=repeats)) for name in ("vaulted", "plain")
    ]
    watch.serve(*standins)
    for stream in (False, True):
        watch.ask(stream=stream)
    watch.check()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 422, 429, 500, 503, 529])
def test_a_provider_that_refuses(status: int, watch: Watch) -> None:
    fault = Fault("status", status=status, message=f"wrong key {VAULTED}")
    watch.serve(watch.stage.standin("openai", "vaulted", fault=fault))
    assert watch.ask().status_code >= 400
    watch.check()


@pytest.mark.parametrize("key", [WRONG, f"{WRONG}\u00fc", f"eyJ{WRONG}.{WRONG}.{WRONG}"], ids=["key", "odd", "token"])
def test_a_key_that_is_not_let_in(key: str, watch: Watch) -> None:
    watch.serve(watch.stage.standin("openai", "vaulted"))
    assert watch.ask(key).status_code == 401
    watch.check()


BODIES = [b"", b"{", b"[]", b'{"model": 7}', b'{"model": "nobody", "messages": []}']


@pytest.mark.parametrize("body", BODIES, ids=repr)
def test_a_bad_request(body: bytes, watch: Watch) -> None:
    watch.serve(watch.stage.standin("openai", "vaulted"))
    assert watch.request("POST", CHAT_PATH, content=body).status_code >= 400
    watch.check()


@pytest.mark.parametrize("gone", ["disabled", "away", "revoked"])
def test_a_vault_that_fails(gone: str, watch: Watch) -> None:
    watch.serve(watch.stage.standin("openai", "vaulted", keys=("another",)))
    watch.ask()
    watch.vault.secrets["vaulted-key"][0].enabled = gone != "disabled"
    watch.vault.fault = standin_vault.Fault(503, headers={"retry-after": "0"}) if gone == "away" else None
    watch.vault.good.clear()
    watch.ask()
    watch.check()


@pytest.mark.parametrize("value", [f"{VAULTED}\n{VAULTED}", f"{VAULTED}\u00fc", f"@Microsoft.KeyVault({VAULTED})"])
def test_a_secret_that_is_none(value: str, watch: Watch) -> None:
    watch.vault.put("vaulted-key", value)
    watch.serve(watch.stage.standin("openai", "vaulted"))
    assert watch.ask().status_code == 502
    watch.check()


REFUSED = [
    f'[callers.x]\nkey = "{WRONG}"',
    f'[callers.x]\nkeys = ["{WRONG}"]',
    f'[callers.x]\nkey = "env:{WRONG}"',
    f'[callers.x]\nkey = {{secret = "{WRONG}"}}',
    f'[entra]\nissuer = "{WRONG}"',
    f'[server]\nmax_body_bytes = "{WRONG}"',
    f'[providers.x]\ntype = "openai"\nkey = "{WRONG}"',
    f'key = "{WRONG}',
]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text.replace("\n", " "))
def test_a_refused_configuration(text: str, watch: Watch) -> None:
    watch.serve_text(text)
    assert watch.request("GET", "/health").status_code == 503
    assert watch.ask().status_code == 503
    watch.check()


def test_a_crash(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.serve(watch.stage.standin("openai", "vaulted"))
    assert watch.ask().status_code == 200
    crash: Callable[..., Any] = lambda *_: 1 / 0  # noqa: E731 - it fails with its arguments at hand
    monkeypatch.setattr(Router, "chat", crash)
    assert watch.ask().status_code == 500
    assert any("ZeroDivisionError" in record for record in watch.told.records)
    watch.check()
