"""What may be asked for: routes, aliases and targets as OpenAI's model objects, with what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from routing.config import Config, Route
from routing.errors import Forbidden
from routing.pricing import Rates
from routing.types import Caller, Target

CREATED = 1_767_225_600  # of every entry, 1 January 2026: the same at each instance and after each restart
OWNER = "llm-router"  # of routes and aliases; targets are owned by their provider
RatesOf = Callable[[Target], Rates | None]


def listed(config: Config, caller: Caller, rates: RatesOf) -> list[dict[str, Any]]:
    """Every name that the caller may ask for and would be answered at."""
    found = []
    for name in config.models(caller):
        try:
            found.append(described(name, config, caller, rates))
        except Forbidden:  # a route of which no target is for this caller
            continue
    return found


def described(name: str, config: Config, caller: Caller, rates: RatesOf) -> dict[str, Any]:
    """One entry. Raises UnknownModel, and Forbidden for what the caller may not use."""
    route = config.route(name, caller)
    owner = config.targets[name].provider if name in config.targets else OWNER
    about = _about(name, route, config, rates)
    return {"id": name, "object": "model", "created": CREATED, "owned_by": owner, "router": about}


def _about(name: str, route: Route, config: Config, rates: RatesOf) -> dict[str, Any]:
    """Of several targets the largest sizes and every feature: each request goes to those that can take it."""
    targets = route.targets
    spaces = {config.file.targets[target.name].embedding_space for target in targets} - {None}
    return {
        "kind": _kind(name, config),
        "route": route.name,
        "strategy": None if route.name in config.targets else route.settings.strategy,
        "targets": [target.name for target in targets],
        "context": _largest(target.context for target in targets),
        "max_output": _largest(target.max_output for target in targets),
        "supports": sorted({feature for target in targets for feature in target.supports}),
        "embedding_space": next(iter(spaces), None),
        "price": {target.name: _price(rates(target)) for target in targets},
        "quality": {target.name: dict(target.quality) for target in targets},
    }


def _kind(name: str, config: Config) -> str:
    if name in config.file.aliases:
        return "alias"
    return "target" if name in config.targets else "route"


def _largest(sizes: Iterable[int | None]) -> int | None:
    """Of those that are known."""
    return max((size for size in sizes if size is not None), default=None)


def _price(rates: Rates | None) -> dict[str, Any] | None:
    """USD per million tokens, with the version of the prices; None when it is not known."""
    if rates is None:
        return None
    named = ("input", "output", "cached_input", "cache_write", "reasoning")
    return {**{name: getattr(rates, name) for name in named}, "version": rates.version}
