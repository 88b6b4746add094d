"""Fixtures: a vault and an identity's endpoint on loopback, under their real names and over TLS."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from routing.cloud.identity import Identity
from tests import standin_vault
from tests.certificates import World
from tests.standin_vault import Vault


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture
def in_this_world(world: World) -> Iterator[World]:
    """Names of Azure lead here, and our authority is trusted."""
    with world.pretended(standin_vault.NAME):
        yield world


@pytest.fixture
async def vault(in_this_world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Vault]:
    """With its identity's endpoint in this process's environment, where Azure's clients look for it."""
    async with standin_vault.serving(in_this_world.server(standin_vault.NAME)) as vault:
        for name, value in vault.environment().items():
            monkeypatch.setenv(name, value)
        yield vault


@pytest.fixture
async def identity(vault: Vault) -> AsyncIterator[Identity]:
    identity = Identity(os.environ)
    yield identity
    await identity.aclose()
