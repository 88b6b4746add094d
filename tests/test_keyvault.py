"""Secrets of a vault, with Azure's own client over TLS."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest

from routing.cloud.identity import Identity
from routing.cloud.keyvault import KeyVault
from routing.fresh import SecretUnavailable
from routing.secrets import Secrets, SecretSettings
from tests.azure_world import identity, in_this_world, vault, world
from tests.conftest import Clock
from tests.standin_vault import Fault, Vault

__all__ = ["identity", "in_this_world", "vault", "world"]
REFERENCE = "keyvault:openai-key"


@pytest.fixture
async def reader(vault: Vault, identity: Identity) -> AsyncIterator[KeyVault]:
    vault.put("openai-key", "sk-one")
    reader = KeyVault(vault.url, identity)
    yield reader
    await reader.aclose()


@pytest.fixture
def secrets(reader: KeyVault, clock: Clock) -> Secrets:
    return Secrets({"keyvault": reader.read}, clock, SecretSettings(ttl_seconds=3_600, read_seconds=5))


async def why_not(reader: KeyVault, name: str = "openai-key") -> SecretUnavailable:
    with pytest.raises(SecretUnavailable) as caught:
        await reader.read(name)
    assert caught.value.__cause__ is None
    return caught.value


async def test_the_latest_version_or_the_one_named(reader: KeyVault, vault: Vault) -> None:
    old = vault.secrets["openai-key"][0].id
    vault.put("openai-key", "sk-two")
    assert await reader.read("openai-key") == "sk-two"
    assert await reader.read(f"openai-key/{old}") == "sk-one"


async def test_one_token_serves_every_read(reader: KeyVault, vault: Vault) -> None:
    for _ in range(3):
        await reader.read("openai-key")
    assert len(vault.asked) == 1


async def test_a_revoked_token_is_replaced_once(vault: Vault, clock: Clock) -> None:
    vault.put("openai-key", "sk-one")
    clock.advance(time.time() - clock())
    identity = Identity(vault.environment(), clock)
    reader = KeyVault(vault.url, identity)
    await reader.read("openai-key")
    vault.good.clear()
    clock.advance(60)
    assert await reader.read("openai-key") == "sk-one"
    assert len(vault.asked) == 2
    await reader.aclose()
    await identity.aclose()


async def test_a_vault_of_another_tenant_is_said(reader: KeyVault, vault: Vault) -> None:
    vault.wrong_tenant = True
    error = await why_not(reader)
    assert str(error).endswith("the vault refuses the identity's token; are both of the same tenant?")
    assert not error.passing
    assert len(vault.asked) == 1


ANSWERS = [
    (
        "missing",
        Fault(404, "SecretNotFound"),
        "it does not exist (az keyvault secret set --vault-name router --name openai-key --value VALUE)",
        False,
    ),
    (
        "disabled",
        Fault(403, "Forbidden", "SecretDisabled"),
        "it is disabled (az keyvault secret set-attributes --vault-name router --name openai-key --enabled true)",
        False,
    ),
    (
        "no role",
        Fault(403, "Forbidden", "ForbiddenByRbac"),
        'give the identity the role "Key Vault Secrets User" on the vault',
        False,
    ),
    ("firewall", Fault(403, "Forbidden", "ForbiddenByFirewall"), "the vault's firewall keeps this app out", False),
    (
        "policy",
        Fault(403, "Forbidden", "AccessDenied"),
        "403 AccessDenied",
        False,
    ),
    ("away", Fault(503, "ServiceUnavailable", headers={"retry-after": "0"}), "503 ServiceUnavailable", True),
    ("throttled", Fault(429, "Throttled", headers={"retry-after": "0"}), "429 Throttled", True),
]


@pytest.mark.parametrize(
    ("fault", "said", "passing"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS]
)
async def test_why_a_secret_cannot_be_read(
    fault: Fault, said: str, passing: bool, reader: KeyVault, vault: Vault
) -> None:
    vault.fault = fault
    error = await why_not(reader)
    assert str(error) == f"secret openai-key in {vault.url}: {said}"
    assert error.passing is passing


async def test_a_throttled_read_waits_as_told_and_succeeds(reader: KeyVault, vault: Vault) -> None:
    vault.faults.extend([Fault(429, headers={"retry-after": "1"}), Fault(429, headers={"retry-after": "0"})])
    started = asyncio.get_running_loop().time()
    assert await reader.read("openai-key") == "sk-one"
    assert asyncio.get_running_loop().time() - started > 0.9


async def test_the_retries_are_bounded(reader: KeyVault, vault: Vault) -> None:
    vault.fault = Fault(503, headers={"retry-after": "0"})
    await why_not(reader)
    assert len(vault.reads) == 3


async def test_a_vault_that_nobody_answers_for_is_said(identity: Identity, vault: Vault) -> None:
    reader = KeyVault("https://router.vault.azure.net:1", identity)
    error = await why_not(reader)
    await reader.aclose()
    assert str(error) == "secret openai-key in https://router.vault.azure.net:1: ServiceRequestError"
    assert error.passing


async def test_a_server_that_asks_for_tokens_of_another_service_gets_none(identity: Identity, vault: Vault) -> None:
    vault.resource = "https://graph.microsoft.com"
    reader = KeyVault(vault.url, identity)
    error = await why_not(reader)
    await reader.aclose()
    assert vault.asked == []
    assert str(error).endswith("what answers there is no Key Vault of this cloud")


@pytest.mark.parametrize("gone", ["disabled", "deleted", "away"])
async def test_the_last_good_value_is_kept(
    gone: str, secrets: Secrets, vault: Vault, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert await secrets.get(REFERENCE) == "sk-one"
    if gone == "disabled":
        vault.secrets["openai-key"][0].enabled = False
    elif gone == "deleted":
        vault.secrets.clear()
    else:
        vault.fault = Fault(503, headers={"retry-after": "0"})
    clock.advance(3_600)
    with caplog.at_level(logging.WARNING):
        assert await secrets.get(REFERENCE) == "sk-one"
        assert await secrets.get(REFERENCE, fresh=True) == "sk-one"
    assert "A secret cannot be read: secret openai-key" in caplog.text
    assert "sk-one" not in caplog.text


async def test_a_rotated_secret_arrives_in_the_background_before_the_old_reading_ends(
    secrets: Secrets, vault: Vault, clock: Clock
) -> None:
    await secrets.get(REFERENCE)
    vault.put("openai-key", "sk-two")
    clock.advance(3_300)
    assert await secrets.get(REFERENCE) == "sk-one"
    await vault.until(lambda: secrets.peek(REFERENCE) == "sk-two")
    assert len(vault.reads) == 2


async def test_a_slow_vault_is_given_up_on(reader: KeyVault, vault: Vault, clock: Clock) -> None:
    vault.open_.clear()
    secrets = Secrets({"keyvault": reader.read}, clock, SecretSettings(read_seconds=0.2))
    with pytest.raises(SecretUnavailable, match=r"^keyvault:openai-key was not read within 0.2 s$") as caught:
        await secrets.get(REFERENCE)
    assert caught.value.passing
    vault.open_.set()
    assert await secrets.get(REFERENCE, fresh=True) == "sk-one"


async def test_what_pasting_into_the_vault_added_is_taken_off(secrets: Secrets, vault: Vault) -> None:
    vault.put("openai-key", " sk-two\n")
    assert await secrets.get(REFERENCE) == "sk-two"


async def test_an_empty_secret_is_refused(secrets: Secrets, vault: Vault) -> None:
    vault.put("openai-key", " ")
    with pytest.raises(SecretUnavailable, match=r"^keyvault:openai-key is empty$"):
        await secrets.get(REFERENCE)
