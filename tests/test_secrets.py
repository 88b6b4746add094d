"""Secrets: read when needed, kept for a while, read anew on demand, and never shown."""

from __future__ import annotations

import traceback

import pytest

from routing.secrets import Secrets, SecretSettings, SecretUnavailable, checked, from_environment
from tests.conftest import Clock


class Vault:
    """A reader that counts; `value` None means it is away."""

    def __init__(self, value: str | None) -> None:
        self.value, self.reads = value, 0

    async def __call__(self, name: str) -> str:
        self.reads += 1
        if self.value is None:
            raise SecretUnavailable(f"the vault did not give {name}")
        return self.value


def secrets_of(vault: Vault, clock: Clock) -> Secrets:
    return Secrets({"keyvault": vault}, clock, SecretSettings(ttl_seconds=60.0))


async def test_a_secret_is_read_when_it_is_first_needed_and_then_kept(clock: Clock) -> None:
    vault = Vault("one")
    secrets = secrets_of(vault, clock)
    assert vault.reads == 0
    assert [await secrets.get("keyvault:k") for _ in range(3)] == ["one", "one", "one"]
    assert vault.reads == 1


async def test_an_old_secret_is_read_again(clock: Clock) -> None:
    vault = Vault("one")
    secrets = secrets_of(vault, clock)
    await secrets.get("keyvault:k")
    vault.value = "two"
    clock.advance(59)
    assert await secrets.get("keyvault:k") == "one"
    clock.advance(1)
    assert await secrets.get("keyvault:k") == "two"


async def test_a_rotated_secret_is_read_at_once_when_asked_for(clock: Clock) -> None:
    vault = Vault("one")
    secrets = secrets_of(vault, clock)
    await secrets.get("keyvault:k")
    vault.value = "two"
    assert await secrets.get("keyvault:k", fresh=True) == "two"
    assert await secrets.get("keyvault:k") == "two"


@pytest.mark.parametrize("away", [None, "", "@Microsoft.KeyVault(SecretUri=x)"], ids=["away", "empty", "unresolved"])
async def test_the_last_good_value_outlives_the_vault(away: str | None, clock: Clock) -> None:
    vault = Vault("one")
    secrets = secrets_of(vault, clock)
    await secrets.get("keyvault:k")
    vault.value = away
    clock.advance(3_600)
    assert await secrets.get("keyvault:k") == "one"
    assert await secrets.get("keyvault:k", fresh=True) == "one"


async def test_a_secret_that_was_never_read_cannot_be_had_without_the_vault(clock: Clock) -> None:
    with pytest.raises(SecretUnavailable, match="the vault did not give k"):
        await secrets_of(Vault(None), clock).get("keyvault:k")


async def test_a_source_that_nothing_reads_is_said(clock: Clock) -> None:
    with pytest.raises(SecretUnavailable, match=r"^env:K cannot be read: nothing reads 'env' here$"):
        await secrets_of(Vault("one"), clock).get("env:K")


async def test_the_environment_is_read_as_it_is_now() -> None:
    environment = {"K": "one"}
    read = from_environment(environment)
    assert await read("K") == "one"
    environment["K"] = "two"
    assert await read("K") == "two"
    with pytest.raises(SecretUnavailable, match="the app setting NONE is not set"):
        await read("NONE")


@pytest.mark.parametrize("pasted", ["sk-1", " sk-1", "sk-1\n", "\tsk-1\r\n"], ids=repr)
def test_what_pasting_adds_is_taken_off(pasted: str) -> None:
    assert checked(pasted, "env:K") == "sk-1"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "env:K is empty"),
        (" \n", "env:K is empty"),
        ("@Microsoft.KeyVault(x)", "env:K is a Key Vault reference that the platform could not resolve"),
        ("@microsoft.keyvault(x)", "env:K is a Key Vault reference that the platform could not resolve"),
        ("sk-1\nsk-2", "env:K holds characters that no key has"),
        ("sk-schlüssel", "env:K holds characters that no key has"),
    ],
    ids=["empty", "blank", "unresolved", "unresolved in small letters", "two lines", "not ASCII"],
)
def test_what_is_no_secret_is_refused_without_being_shown(value: str, message: str) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        checked(value, "env:K")
    assert str(caught.value) == message


async def test_no_repr_and_no_error_shows_a_secret(clock: Clock) -> None:
    vault = Vault("sk-verysecret")
    secrets = secrets_of(vault, clock)
    await secrets.get("keyvault:k")
    vault.value = "sk-verysecret\nagain"
    shown = [repr(secrets), repr(vars(secrets))]
    with pytest.raises(SecretUnavailable) as caught:
        await secrets_of(vault, clock).get("keyvault:k")
    shown += traceback.format_exception(caught.value)
    assert "verysecret" not in "".join(shown)
