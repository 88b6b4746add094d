"""Entra access tokens as callers, against an issuer on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from routing import entra
from routing.callers import Callers
from routing.config import parse
from routing.credentials import caller_roles
from routing.entra import EntraSettings, EntraTokens
from routing.errors import Forbidden, Misconfigured, RouterError, Unauthenticated
from routing.secrets import Secrets, SecretSettings, from_environment
from routing.types import Caller
from tests import standin_issuer
from tests.azure_world import world
from tests.certificates import World
from tests.conftest import Clock
from tests.standin_issuer import AUDIENCE, TENANT, Issuer

__all__ = ["world"]
APP, OPS = Caller("app"), Caller("ops", "admin")


@pytest.fixture
async def issuer(world: World) -> AsyncIterator[Issuer]:
    with world.pretended(standin_issuer.NAME):
        async with standin_issuer.serving(world.server(standin_issuer.NAME)) as issuer:
            yield issuer


@pytest.fixture
async def tokens(issuer: Issuer, clock: Clock) -> AsyncIterator[EntraTokens]:
    settings = EntraSettings(
        issuer=issuer.url, audience=[AUDIENCE, "a-client-id"], roles={"Router.Admin": "ops", "Router.Use": "app"}
    )
    tokens = EntraTokens(settings, {"Router.Admin": OPS, "Router.Use": APP}, clock)
    yield tokens
    await tokens.aclose()


async def why_not(tokens: EntraTokens, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await tokens.caller(token)
    assert (caught.value.status, caught.value.code) == (401, "invalid_token")
    assert caught.value.__cause__ is None
    return caught.value.message.removeprefix("The access token is not valid here: ").removesuffix(".")


@pytest.mark.parametrize(
    ("roles", "caller"),
    [
        (["Router.Use"], APP),
        (["Router.Admin"], OPS),
        (["Router.Use", "Router.Admin"], OPS),
        (["Other", 7, None, ["Router.Admin"], "Router.Use"], APP),
    ],
    ids=["user", "admin", "the first in the file", "among others"],
)
async def test_an_app_role_is_a_caller(roles: list[Any], caller: Caller, tokens: EntraTokens, issuer: Issuer) -> None:
    assert await tokens.caller(issuer.token(roles=roles)) == caller


@pytest.mark.parametrize("roles", [None, [], ["Other"], "Router.Admin", {"Router.Admin": 1}], ids=repr)
async def test_without_a_role_known_here_nobody_gets_in(roles: Any, tokens: EntraTokens, issuer: Issuer) -> None:
    with pytest.raises(Forbidden) as caught:
        await tokens.caller(issuer.token(roles=roles))
    assert caught.value.status == 403


@pytest.mark.parametrize("audience", [AUDIENCE, "a-client-id", ["other", AUDIENCE]], ids=str)
async def test_any_of_our_audiences_will_do(audience: Any, tokens: EntraTokens, issuer: Issuer) -> None:
    assert await tokens.caller(issuer.token(aud=audience)) == APP


NOW = int(time.time())
CLAIMS = [
    ("expired", {"exp": NOW - 120}, "it is expired"),
    ("not yet valid", {"nbf": NOW + 600}, "it is not valid yet"),
    ("issued in the future", {"iat": NOW + 600}, "it is not valid yet"),
    ("another audience", {"aud": "api://other"}, "it is for another audience"),
    ("part of our audience", {"aud": AUDIENCE[:-1]}, "it is for another audience"),
    ("another issuer", {"iss": "https://login.example.org/other/v2.0"}, "it is of another issuer"),
    ("no expiry", {"exp": None}, "it lacks a claim that it must have"),
    ("no audience", {"aud": None}, "it lacks a claim that it must have"),
    ("no issuer", {"iss": None}, "it lacks a claim that it must have"),
    ("no date of issue", {"iat": None}, "it lacks a claim that it must have"),
    ("an endless expiry", {"exp": float("inf")}, "it cannot be verified"),
    ("an expiry in words", {"exp": "tomorrow"}, "it cannot be verified"),
]


@pytest.mark.parametrize(("claims", "why"), [case[1:] for case in CLAIMS], ids=[case[0] for case in CLAIMS])
async def test_a_token_with_such_claims_is_refused(
    claims: dict[str, Any], why: str, tokens: EntraTokens, issuer: Issuer
) -> None:
    assert await why_not(tokens, issuer.token(**claims)) == why


async def test_a_clock_that_is_a_little_off_is_forgiven(tokens: EntraTokens, issuer: Issuer) -> None:
    now = int(time.time())
    assert await tokens.caller(issuer.token(exp=now - 30)) == APP
    assert await tokens.caller(issuer.token(nbf=now + 30, iat=now + 30)) == APP


def encoded(part: Any) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def unsigned(issuer: Issuer, algorithm: str) -> str:
    return f"{encoded({'alg': algorithm, 'kid': 'first', 'typ': 'JWT'})}.{encoded(issuer.claims())}."


def signed_with_the_public_key(issuer: Issuer) -> str:
    """HMAC with what everybody can read: the verifier that lets the token choose takes it for a secret."""
    signed = f"{encoded({'alg': 'HS256', 'kid': 'first', 'typ': 'JWT'})}.{encoded(issuer.claims())}"
    return f"{signed}.{encoded(hmac.new(issuer.public(), signed.encode(), hashlib.sha256).digest())}"


def signed_by_another(issuer: Issuer) -> str:
    key = rsa.generate_private_key(65_537, 2_048)
    return jwt.encode(issuer.claims(), key, algorithm="RS256", headers={"kid": "first"})


def with_its_own_key(issuer: Issuer) -> str:
    """The header brings the key along that would verify it."""
    key = rsa.generate_private_key(65_537, 2_048)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    headers = {"kid": "first", "jwk": jwk, "jku": "https://evil.example.org/keys"}
    return jwt.encode(issuer.claims(), key, algorithm="RS256", headers=headers)


def by_elliptic_curve(issuer: Issuer) -> str:
    return jwt.encode(
        issuer.claims(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": "first"}
    )


def without_a_key_id(issuer: Issuer) -> str:
    return jwt.encode(issuer.claims(), issuer.keys["first"], algorithm="RS256")


def changed(issuer: Issuer) -> str:
    header, _, signature = issuer.token(roles=["Router.Use"]).split(".")
    return f"{header}.{encoded(issuer.claims(roles=['Router.Admin']))}.{signature}"


ALGORITHM = "it is signed by an algorithm that is not taken here"
FORGED = [
    ("none", lambda issuer: unsigned(issuer, "none"), ALGORITHM),
    ("None", lambda issuer: unsigned(issuer, "None"), ALGORITHM),
    ("nothing signed", lambda issuer: unsigned(issuer, "RS256"), "its signature is wrong"),
    ("public key as secret", signed_with_the_public_key, ALGORITHM),
    ("another key", signed_by_another, "its signature is wrong"),
    ("its own key", with_its_own_key, "its signature is wrong"),
    ("another algorithm", by_elliptic_curve, ALGORITHM),
    ("changed", changed, "its signature is wrong"),
    ("no key id", without_a_key_id, "no key of its issuer has signed it"),
    ("a key id that is no text", lambda _: f"{encoded({'alg': 'RS256', 'kid': 7})}.e30.e30", "it cannot be verified"),
    ("a critical extension", lambda issuer: issuer.token(header={"crit": ["x"], "x": 1}), "it cannot be verified"),
    ("no token at all", lambda _: "eyJ.eyJ.x", "it cannot be verified"),
    ("a header nested deeply", lambda _: f"{encoded(b'[' * 100_000)}.e30.e30", "it cannot be verified"),
]


@pytest.mark.parametrize(("forge", "why"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED])
async def test_a_forged_token_is_refused(forge: Any, why: str, tokens: EntraTokens, issuer: Issuer) -> None:
    assert await tokens.caller(issuer.token()) == APP
    assert await why_not(tokens, forge(issuer)) == why


async def test_a_rolled_over_key_is_fetched_when_the_first_token_shows_it(
    tokens: EntraTokens, issuer: Issuer, clock: Clock
) -> None:
    old = issuer.token()
    await tokens.caller(old)
    clock.advance(30)
    issuer.roll_over("second")
    assert await asyncio.gather(*(tokens.caller(issuer.token()) for _ in range(10))) == [APP] * 10
    assert await tokens.caller(old) == APP
    assert issuer.fetches == 2


async def test_a_key_that_is_no_longer_published_is_good_for_nothing(
    tokens: EntraTokens, issuer: Issuer, clock: Clock
) -> None:
    old = issuer.token()
    await tokens.caller(old)
    issuer.roll_over("second", keep=False)
    clock.advance(30)
    await tokens.caller(issuer.token())
    assert await why_not(tokens, old) == "no key of its issuer has signed it"


async def test_made_up_key_ids_do_not_have_the_keys_fetched_again_and_again(
    tokens: EntraTokens, issuer: Issuer, clock: Clock
) -> None:
    for number in range(20):
        assert await why_not(tokens, issuer.token(header={"kid": f"made-up-{number}"}))
        clock.advance(3)
    assert issuer.fetches <= 3


async def test_with_the_issuer_away_the_last_keys_stay_good(tokens: EntraTokens, issuer: Issuer, clock: Clock) -> None:
    await tokens.caller(issuer.token())
    issuer.away = True
    for _ in range(3):
        clock.advance(86_400)
        assert await tokens.caller(issuer.token()) == APP


async def test_whether_the_issuer_is_there_is_told_with_its_name(
    tokens: EntraTokens, issuer: Issuer, clock: Clock
) -> None:
    await tokens.check()
    away = EntraTokens(
        EntraSettings(issuer=f"{issuer.url}/gone", audience=["a"], roles={"r": "app"}), {"r": APP}, clock
    )
    with pytest.raises(RouterError, match="/gone"):
        await away.check()
    await away.aclose()


async def test_without_any_keys_the_caller_may_come_again(tokens: EntraTokens, issuer: Issuer, clock: Clock) -> None:
    issuer.away = True
    with pytest.raises(RouterError) as caught:
        await tokens.caller(issuer.token())
    assert (caught.value.status, caught.value.code, caught.value.worth_retrying) == (503, "callers_unavailable", True)
    issuer.away = False
    clock.advance(2)
    assert await tokens.caller(issuer.token()) == APP


@pytest.mark.parametrize(
    "about",
    [{"issuer": "https://other.example.org"}, {"jwks_uri": "http://login.example.org/keys"}, {"jwks_uri": None}],
    ids=["of another issuer", "keys in the clear", "no keys"],
)
async def test_a_discovery_document_that_leads_elsewhere_is_not_followed(
    about: dict[str, Any], tokens: EntraTokens, issuer: Issuer
) -> None:
    issuer.about = about
    with pytest.raises(RouterError) as caught:
        await tokens.caller(issuer.token())
    assert caught.value.status == 503
    assert issuer.fetches == 0


async def test_keys_that_are_for_something_else_are_passed_over(tokens: EntraTokens, issuer: Issuer) -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "shared", "use": "sig"}
    issuer.more_keys = ["no key", {"kty": "?"}, secret]
    forged = jwt.encode(issuer.claims(), "secret-secret-secret-secret-secret", headers={"kid": "shared"})
    assert await why_not(tokens, forged) == "no key of its issuer has signed it"
    assert await tokens.caller(issuer.token()) == APP


async def test_keys_and_tokens_come_in_by_the_same_header(tokens: EntraTokens, issuer: Issuer, clock: Clock) -> None:
    secrets = Secrets({"env": from_environment({"K": "eyJ.a.key"})}, clock, SecretSettings())
    await secrets.get("env:K")
    callers = Callers({"env:K": OPS}, secrets, tokens)
    assert await callers.authenticate({"authorization": f"Bearer {issuer.token()}"}) == APP
    assert await callers.authenticate({"authorization": "Bearer eyJ.a.key"}) == OPS
    with pytest.raises(Unauthenticated, match="The API key is not valid here"):
        await callers.authenticate({"api-key": "sk-unknown"})


async def test_where_no_tokens_are_taken_a_token_is_an_unknown_key(issuer: Issuer, clock: Clock) -> None:
    callers = Callers({}, Secrets({}, clock, SecretSettings()))
    with pytest.raises(Unauthenticated, match="The API key is not valid here"):
        await callers.authenticate({"authorization": f"Bearer {issuer.token()}"})
    assert issuer.fetches == 0


def test_a_tenant_stands_for_the_issuers_of_both_versions_of_its_tokens() -> None:
    settings = EntraSettings(tenant=TENANT, audience=[AUDIENCE], roles={"Router.Use": "app"})
    assert settings.issuers == (
        f"https://login.microsoftonline.com/{TENANT}/v2.0",
        f"https://sts.windows.net/{TENANT}/",
    )


async def test_tokens_of_both_versions_are_taken_and_of_no_other_tenant(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entra, "LOGIN", issuer.url.removesuffix(f"/{TENANT}/v2.0"))
    settings = EntraSettings(tenant=TENANT, audience=[AUDIENCE], roles={"Router.Use": "app"})
    tokens = EntraTokens(settings, {"Router.Use": APP}, clock)
    assert await tokens.caller(issuer.token()) == APP
    assert await tokens.caller(issuer.token(iss=f"https://sts.windows.net/{TENANT}/")) == APP
    other = issuer.token(iss=f"https://sts.windows.net/{TENANT.replace('e', 'f')}/")
    assert await why_not(tokens, other) == "it is of another issuer"
    await tokens.aclose()


FILE = f"""
[entra]
tenant = "{TENANT}"
audience = ["{AUDIENCE}"]
[entra.roles]
"Router.Admin" = "ops"
"Router.Use" = "app"
[callers.app]
[callers.ops]
key = "env:OPS"
role = "admin"
"""


def test_roles_lead_to_the_callers_of_the_routes_file_in_its_order() -> None:
    assert list(caller_roles(parse(FILE, {})).items()) == [("Router.Admin", OPS), ("Router.Use", APP)]


HTTPS = "write the issuer's https address, as it stands in the tokens' `iss`"
REFUSED = [
    ("no caller", ('"app"', '"nobody"'), 'entra.roles."Router.Use": no caller "nobody"; callers are app, ops'),
    ("plain http", (f'tenant = "{TENANT}"', 'issuer = "http://127.0.0.1/"'), f"entra.issuer: {HTTPS}"),
    ("no issuer", (f'tenant = "{TENANT}"', ""), "entra: needs either tenant, the directory's id, or issuer"),
    (
        "no audience",
        (f'["{AUDIENCE}"]', "[]"),
        "entra.audience: List should have at least 1 item after validation, not 0",
    ),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_table_that_cannot_work_is_refused(change: tuple[str, str], said: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse(FILE.replace(*change), {})
    assert said in caught.value.errors
