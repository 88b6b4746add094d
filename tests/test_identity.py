"""The process's identity, with Azure's own credential against an endpoint like App Service's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

from routing.cloud.identity import Identity
from routing.fresh import SecretUnavailable
from tests.azure_world import identity, in_this_world, vault, world
from tests.conftest import ROOT, Clock
from tests.standin_vault import CLIENT_ID, Vault

__all__ = ["identity", "in_this_world", "vault", "world"]
SCOPE = "https://cognitiveservices.azure.com/.default"


@pytest.fixture
async def aging(vault: Vault, clock: Clock) -> AsyncIterator[Identity]:
    """With a clock that a test can advance, starting at the real time, by which the tokens expire."""
    clock.advance(time.time() - clock())
    identity = Identity(vault.environment(), clock)
    yield identity
    await identity.aclose()


async def test_the_user_assigned_identity_is_asked_for_the_service(identity: Identity, vault: Vault) -> None:
    assert await identity.token(SCOPE) in vault.good
    (asked,) = vault.asked
    assert asked["resource"] == "https://cognitiveservices.azure.com"
    assert asked["client_id"] == CLIENT_ID


async def test_without_a_client_id_it_is_the_system_assigned_one(vault: Vault) -> None:
    identity = Identity({**vault.environment(), "AZURE_CLIENT_ID": ""})
    await identity.token(SCOPE)
    await identity.aclose()
    assert "client_id" not in vault.asked[0]


async def test_many_requests_share_one_token_and_one_request_for_it(identity: Identity, vault: Vault) -> None:
    tokens = await asyncio.gather(*(identity.token(SCOPE) for _ in range(50)))
    assert (len(set(tokens)), len(vault.asked)) == (1, 1)


async def test_each_service_has_its_own_token(identity: Identity, vault: Vault) -> None:
    scopes = [SCOPE, "https://storage.azure.com/.default", "https://vault.azure.net/.default"]
    assert len(set(await asyncio.gather(*map(identity.token, scopes)))) == 3
    assert sorted(asked["resource"] for asked in vault.asked) == sorted(scope[: -len("/.default")] for scope in scopes)


async def test_a_token_is_renewed_before_it_expires_and_nobody_waits(
    aging: Identity, vault: Vault, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await aging.token(SCOPE)
    clock.advance(3_600 - 290)
    monkeypatch.setattr(time, "time", clock)  # azure.identity's own clock
    vault.token_seconds = 7_000
    assert await aging.token(SCOPE) == first
    await vault.until(lambda: len(vault.asked) == 2)
    clock.advance(300)
    assert await aging.token(SCOPE) in vault.good - {first}
    assert len(vault.asked) == 2


async def test_an_expired_token_is_never_given(
    aging: Identity, vault: Vault, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await aging.token(SCOPE)
    vault.identity_faults.extend([400] * 20)
    clock.advance(3_600 + 60)  # the token's time began when it was given, by the real clock
    monkeypatch.setattr(time, "time", clock)  # azure.identity's own clock
    with pytest.raises(SecretUnavailable, match="no token for https://cognitiveservices"):
        await aging.token(SCOPE)


async def test_a_refused_token_is_replaced_at_once(identity: Identity, vault: Vault) -> None:
    old = await identity.token(SCOPE)
    vault.good.clear()
    new = await asyncio.gather(*(identity.token(SCOPE, fresh=True) for _ in range(20)))
    assert set(new) == vault.good != {old}
    assert await identity.token(SCOPE) == new[0]
    assert len(vault.asked) == 2


async def test_when_no_new_token_can_be_had_the_last_one_is_tried(identity: Identity, vault: Vault) -> None:
    old = await identity.token(SCOPE)
    vault.identity_faults.extend([400] * 20)
    assert await identity.token(SCOPE, fresh=True) == old


async def test_an_endpoint_that_fails_once_is_asked_again(identity: Identity, vault: Vault) -> None:
    vault.identity_faults.append(500)
    assert await identity.token(SCOPE) in vault.good


async def test_no_identity_is_said_with_what_to_do(identity: Identity, vault: Vault) -> None:
    vault.identity_faults.extend([400] * 20)
    with pytest.raises(SecretUnavailable) as caught:
        await identity.token(SCOPE)
    assert "set AZURE_CLIENT_ID to its client id, on a laptop run `az login`" in str(caught.value)
    assert not caught.value.passing


async def test_azures_clients_are_given_the_same_token(identity: Identity, vault: Vault) -> None:
    credential = identity.credential()
    older, newer = await credential.get_token(SCOPE), await credential.get_token_info(SCOPE)
    assert older.token == newer.token == await identity.token(SCOPE)
    assert older.expires_on == newer.expires_on
    async with credential:
        pass
    assert await identity.token(SCOPE) == older.token
    assert len(vault.asked) == 1


async def test_a_client_that_asks_again_had_its_token_refused(aging: Identity, vault: Vault, clock: Clock) -> None:
    """It keeps the token itself, and asks once more only then, perhaps naming the tenant that the service wants."""
    client, other = aging.credential(), aging.credential()
    first = await client.get_token_info(SCOPE)
    assert (await client.get_token_info(SCOPE)).token == first.token  # another of its first requests
    clock.advance(5)
    second = await client.get_token_info(SCOPE, options={"tenant_id": "the-vaults-own"})
    assert second.token in vault.good - {first.token}
    assert (await other.get_token_info(SCOPE)).token == first.token
    assert len(vault.asked) == 2


async def test_a_client_whose_token_is_due_is_not_taken_for_a_refused_one(
    aging: Identity, vault: Vault, clock: Clock
) -> None:
    client = aging.credential()
    first = await client.get_token_info(SCOPE)
    clock.advance(3_600 - 290)
    vault.identity_faults.extend([400] * 20)
    assert (await client.get_token_info(SCOPE)).token == first.token


async def test_a_claims_challenge_reaches_the_credential(identity: Identity, vault: Vault) -> None:
    """App Service's endpoint has no use for claims; the token still is one that it gave."""
    info = await identity.credential().get_token_info(SCOPE, options={"claims": '{"access_token": {}}'})
    assert info.token in vault.good


async def test_no_repr_shows_a_token(identity: Identity) -> None:
    token = await identity.token(SCOPE)
    assert token not in repr(identity) + repr(vars(identity))


def test_on_a_laptop_the_usual_places_are_looked_into() -> None:
    code = (
        "import asyncio, sys\n"
        "from routing.cloud.identity import Identity\n"
        "identity = Identity({})\n"
        "assert 'azure.identity' not in sys.modules\n"
        "print(type(identity._make()).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "DefaultAzureCredential"


LATE = [
    ("azure.identity.aio", "cloud.identity", "Identity({})._opened()"),
    ("azure.keyvault.secrets.aio", "cloud.keyvault", "KeyVault('https://v.vault.azure.net', Identity({}))._opened()"),
    ("jwt", "entra", "EntraTokens(None, {})._opened()"),
]


@pytest.mark.parametrize(("library", "module", "opening"), LATE, ids=[case[0] for case in LATE])
def test_a_big_library_is_loaded_late_and_in_a_thread(library: str, module: str, opening: str) -> None:
    """It takes so much CPU to import that every stream would stand still."""
    code = f"""
import asyncio, sys, threading
from routing.{module} import *
class Watch:
    def find_spec(self, name, *_):
        if name == {library!r}:
            print(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Watch())
async def main():
    opened = await {opening}
    await getattr(opened, "aclose", getattr(opened, "close", None))()
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
