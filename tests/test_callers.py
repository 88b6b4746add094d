"""Who gets in, and with what."""

from __future__ import annotations

import hmac
import logging

import pytest

from routing import callers as callers_module
from routing.callers import Callers, key_in
from routing.errors import Unauthenticated
from routing.secrets import Secrets, SecretSettings, from_environment
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
    assert "A caller cannot get in: the app setting APP is not set" in caplog.text


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
