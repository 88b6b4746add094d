"""The self-check of a deployment: what the router depends on, whether it can be had, and what mends it if not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from routing.documents import StoreError
from routing.errors import ProviderError, RouterError
from routing.fresh import SecretUnavailable
from routing.wiring import App

SECONDS = 5.0  # for each dependency; all are asked at once


@dataclass(frozen=True, slots=True)
class Check:
    """One dependency. `detail` says what is wrong and, where it can be told, the role or setting that mends it."""

    name: str
    ok: bool
    detail: str = ""


async def checks(app: App) -> list[Check]:
    """Every dependency that the routes file and the app settings name, and the app settings that hold no usable key."""
    found = await asyncio.gather(*(_checked(name, work) for name, work in _all(app)))
    return [check for check in found if not (check.ok and check.name.startswith("env:"))]


async def secret_checks(app: App, references: Iterable[str]) -> list[Check]:
    """Of these secrets only."""
    return list(await asyncio.gather(*(_checked(each, app.secrets.get(each)) for each in references)))


def _all(app: App) -> Iterator[tuple[str, Awaitable[object]]]:
    if app.sender.sends:
        yield "telemetry", _arriving(app.sender)
    if app.store is not None:
        yield "table", app.store.load_all()
    if app.notices.hub is not None:
        yield "signalr", app.notices.hub.check()
    if app.callers.tokens is not None:
        yield "token issuer", app.callers.tokens.check()
    for reference in dict.fromkeys(reference for _, reference in app.config.references()):
        yield reference, app.secrets.get(reference)
    for name, provider in app.providers.items():
        targets = {each.model: each for each in app.config.targets.values() if each.provider == name}
        if provider.checks_models:
            yield from ((f"provider {name}: {model}", provider.check(target)) for model, target in targets.items())
        elif targets:
            yield f"provider {name}", provider.check(next(iter(targets.values())))


class Sender(Protocol):
    def trouble(self) -> str | None: ...


class _Missing(Exception):
    """Of something that is only watched: what it lacks."""


async def _arriving(sender: Sender) -> None:
    if trouble := sender.trouble():
        raise _Missing(trouble)


async def _checked(name: str, work: Awaitable[object]) -> Check:
    try:
        async with asyncio.timeout(SECONDS):
            await work
    except TimeoutError:
        return Check(name, False, f"no answer within {SECONDS:.0f} s")
    except ProviderError as error:
        return Check(name, False, f"{type(error).__name__}: {error}")
    except (StoreError, SecretUnavailable, RouterError, _Missing) as error:
        return Check(name, False, str(error))
    except Exception as error:  # an answer that nobody expected is one that has to be seen here
        return Check(name, False, f"it answers in a way that is not understood: {type(error).__name__}")
    return Check(name, True)
