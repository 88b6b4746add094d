"""Who gets in, and with what."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator

import pytest

from routing import callers as callers_module
from routing.callers import Callers, key_in
from routing.errors import RouterError, Unauthenticated
from routing.secrets import Read, Secrets, SecretSettings, SecretUnavailable, from_environment
from routing.types import Caller
from tests.conftest import Clock

APP, ADMIN = Caller("app"), Caller("ops", "admin")


def callers_of(clock: Clock, **environment: str) -> Callers:
    secrets = Secrets({"env": from_environment(environment)}, clock, SecretSettings())
    return Callers({"env:APP": APP, "env:OPS": ADMIN}, secrets)


CARRIED = [
    ("bearer", {"authorization": "Bearer k"}, "k"),
    ("any case", {"authorization": "bEARER k"}, "k"),
    ("more blanks", {"authorization": "Bearer   k "}, "k"),
    ("api-key", {"api-key": " k "}, "k"),
    ("bearer first", {"authorization": "Bearer k", "api-key": "other"}, "k"),
    ("another scheme", {"authorization": "Basic k", "api-key": "k"}, "k"),
    ("an empty bearer", {"authorization": "Bearer ", "api-key": "k"}, "k"),
    ("another scheme alone", {"authorization": "Basic k"}, None),
    ("a key alone", {"authorization": "k"}, None),
    ("empty", {"authorization": "", "api-key": ""}, None),
    ("nothing", {}, None),
]


@pytest.mark.parametrize(("headers", "key"), [case[1:] for case in CARRIED], ids=[case[0] for case in CARRIED])
def test_the_key_a_request_carries(headers: dict[str, str], key: str | None) -> None:
    assert key_in(headers) == key


async def test_each_key_is_its_caller(clock: Clock) -> None:
    callers = callers_of(clock, APP="one", OPS="two")
    assert await callers.authenticate({"authorization": "Bearer one"}) == APP
    assert await callers.authenticate({"api-key": "two"}) == ADMIN


@pytest.mark.parametrize("key", ["three", "on", "onee", "ONE", "ünï", "\udce9", "app"], ids=ascii)
async def test_any_other_key_is_told_the_same(key: str, clock: Clock) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await callers_of(clock, APP="one", OPS="two").authenticate({"api-key": key})
    assert (caught.value.message, caught.value.status) == ("The API key is not valid here.", 401)
    assert caught.value.body()["error"]["code"] == "invalid_api_key"


async def test_without_a_key_it_is_said_how_to_send_one(clock: Clock) -> None:
    with pytest.raises(Unauthenticated, match="Authorization: Bearer KEY"):
        await callers_of(clock, APP="one").authenticate({})


async def test_with_no_caller_configured_nobody_gets_in(clock: Clock) -> None:
    callers = Callers({}, Secrets({}, clock, SecretSettings()))
    with pytest.raises(Unauthenticated):
        await callers.authenticate({"api-key": "anything"})


async def test_a_caller_whose_key_is_missing_stays_out_and_the_others_get_in(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    callers = callers_of(clock, OPS="two")
    with caplog.at_level(logging.WARNING):
        assert await callers.authenticate({"api-key": "two"}) == ADMIN
        with pytest.raises(Unauthenticated):
            await callers.authenticate({"api-key": "one"})
    assert "A secret cannot be read: the app setting APP is not set" in caplog.text


@pytest.mark.parametrize("key", ["one", "two", "neither"])
async def test_every_key_is_compared_whatever_matches(key: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    class Watched:
        @staticmethod
        def compare_digest(left: bytes, right: bytes) -> bool:
            compared.append(len(left))
            return hmac.compare_digest(left, right)

    monkeypatch.setattr(callers_module, "hmac", Watched)
    try:
        await callers_of(clock, APP="one", OPS="two").authenticate({"api-key": key})
    except Unauthenticated:
        assert key == "neither"
    assert compared == [32, 32]


class SlowVault:
    """A source of secrets that answers when it is told to; `values` may change."""

    def __init__(self, **values: str) -> None:
        self.values, self.reads = values, 0
        self.open_ = asyncio.Event()

    async def __call__(self, name: str) -> str:
        self.reads += 1
        await self.open_.wait()
        if name not in self.values:
            raise SecretUnavailable(f"secret {name} is away", passing=True)
        return self.values[name]


class Bench:
    """The caller `app` has two keys in the vault, `ops` one in the environment."""

    def __init__(self, clock: Clock) -> None:
        self.vault = SlowVault(first="one", second="two")
        readers: dict[str, Read] = {"env": from_environment({"OPS": "three"}), "keyvault": self.vault}
        self.secrets = Secrets(readers, clock, SecretSettings())
        keys = {"keyvault:first": APP, "env:OPS": ADMIN, "keyvault:second": APP}
        self.callers = Callers(keys, self.secrets)

    async def who(self, key: str) -> Caller:
        return await self.callers.authenticate({"api-key": key})

    async def refused(self, key: str) -> RouterError:
        with pytest.raises(RouterError) as caught:
            await self.who(key)
        return caught.value


@pytest.fixture
async def bench(clock: Clock) -> AsyncIterator[Bench]:
    bench = Bench(clock)
    yield bench
    await bench.secrets.aclose()


async def test_each_of_several_keys_is_its_caller(bench: Bench) -> None:
    bench.vault.open_.set()
    assert [await bench.who(key) for key in ("one", "two", "three")] == [APP, APP, ADMIN]


async def test_who_is_known_does_not_wait_for_the_keys_of_others(bench: Bench) -> None:
    async with asyncio.timeout(1):
        assert await bench.who("three") == ADMIN


async def test_who_may_be_in_the_vault_waits_for_it_and_others_do_not_read_it_twice(bench: Bench) -> None:
    waiting = [asyncio.ensure_future(bench.who(key)) for key in ("one", "two", "one")]
    await bench.who("three")
    bench.vault.open_.set()
    assert await asyncio.gather(*waiting) == [APP] * 3
    assert bench.vault.reads == 2


async def test_a_caller_who_leaves_while_waiting_ends_no_reading(bench: Bench) -> None:
    waiting = asyncio.ensure_future(bench.who("one"))
    await bench.who("three")
    waiting.cancel()
    bench.vault.open_.set()
    assert await bench.who("one") == APP
    assert bench.vault.reads == 2


async def test_while_keys_are_away_an_unknown_key_may_come_again(bench: Bench) -> None:
    bench.vault.open_.set()
    bench.vault.values.clear()
    error = await bench.refused("one")
    assert (error.status, error.code, error.retry_after) == (503, "callers_unavailable", 2.0)
    assert await bench.who("three") == ADMIN


async def test_a_key_that_was_rotated_in_the_vault_gets_in_within_half_a_minute(bench: Bench, clock: Clock) -> None:
    bench.vault.open_.set()
    assert await bench.who("one") == APP
    bench.vault.values["first"] = "new"
    clock.advance(29)
    assert (await bench.refused("new")).status == 401
    clock.advance(1)
    assert await bench.who("new") == APP
    assert (await bench.refused("one")).status == 401


async def test_unknown_keys_cannot_have_the_vault_read_again_and_again(bench: Bench, clock: Clock) -> None:
    bench.vault.open_.set()
    for _ in range(100):
        assert (await bench.refused("made-up")).status == 401
        clock.advance(0.5)
    assert bench.vault.reads <= 4


async def test_the_last_good_keys_let_their_callers_in_while_the_vault_is_away(bench: Bench, clock: Clock) -> None:
    bench.vault.open_.set()
    await bench.who("one")
    bench.vault.values.clear()
    clock.advance(7_200)
    assert await bench.who("one") == APP
    assert (await bench.refused("made-up")).status == 401


async def test_made_up_keys_neither_fill_the_log_nor_have_the_missing_key_read_each_time(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.vault.open_.set()
    bench.vault.values.clear()
    for _ in range(50):
        await bench.refused("made-up")
    assert (bench.vault.reads, len(caplog.records)) == (2, 2)
