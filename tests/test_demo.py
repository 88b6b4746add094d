"""The tour in the terminal happens, and says so when it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from local import azurite, demo
from tests.conftest import unavailable

ROOT = Path(__file__).resolve().parent.parent


def test_everything_that_the_tour_shows_happens():
    if reason := azurite.unavailable():
        unavailable(reason)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
    command = [sys.executable, "-m", "local.demo"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert "All of it happened" in done.stdout


def test_a_breaker_that_never_opens_ends_the_tour(monkeypatch, capsys, tmp_path):
    if reason := azurite.unavailable():
        unavailable(reason)
    routes = tmp_path / "routes.toml"
    settings = demo.ROUTES.read_text()
    assert "failure_threshold = 3" in settings
    routes.write_text(settings.replace("failure_threshold = 3", "failure_threshold = 50"))
    monkeypatch.setattr(demo, "ROUTES", routes)
    for name in [name for name in os.environ if name.startswith("ROUTER_")]:
        monkeypatch.delenv(name)
    assert demo.main() == 1
    assert capsys.readouterr().out.endswith("requests found large dead, and A's breaker is still closed\n")


def test_a_tour_on_which_something_does_not_happen_fails(monkeypatch, capsys):
    @asynccontextmanager
    async def nothing() -> AsyncIterator[None]:
        yield

    async def goes_wrong(_: object) -> None:
        demo.check(False, "both breakers open")

    monkeypatch.setattr("local.azurite.unavailable", lambda: None)
    monkeypatch.setattr(demo, "world", nothing)
    monkeypatch.setattr(demo, "tasks", goes_wrong)
    assert demo.main() == 1
    assert capsys.readouterr().out.endswith("✗ both breakers open\n")


def test_a_tour_without_azurite_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr("local.azurite.unavailable", lambda: "node is not installed")
    assert demo.main() == 1
    assert "node is not installed" in capsys.readouterr().out


async def test_what_does_not_happen_in_time_is_named(monkeypatch):
    async def never() -> bool:
        return False

    monkeypatch.setattr(demo, "PATIENCE", 0)
    with pytest.raises(demo.DemoFailed, match="the moon"):
        await demo.until(never, "the moon")
