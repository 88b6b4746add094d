"""The routes file: read, checked as a whole, and turned into the values that requests meet."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from routing.errors import Forbidden, Misconfigured, UnknownModel
from routing.refusals import dangling, fill_addresses, hopeless, refusal
from routing.routes_file import CallerSettings, RouteOverride, RouteSettings, RoutesFile, TargetSettings
from routing.types import Caller, Price, Target


@dataclass(frozen=True, slots=True)
class Route:
    """A route as a request meets it: a named one, or a single target asked for by name."""

    name: str
    targets: tuple[Target, ...]
    settings: RouteSettings
    groups: Mapping[str, Route] = field(default_factory=dict)  # what it is for a caller of that group
    callers: Mapping[str, Route] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()  # targets that the caller may not use

    def seen_by(self, caller: Caller) -> Route:
        """The route as this caller meets it: its own override, else that of the first of its groups that has one."""
        if caller.name in self.callers:
            return self.callers[caller.name]
        return next((self.groups[group] for group in caller.groups if group in self.groups), self)


@dataclass(frozen=True)
class Config:
    """A routes file that has been found good."""

    file: RoutesFile
    targets: Mapping[str, Target] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)  # by every name a request may ask for
    callers: Mapping[str, Caller] = field(default_factory=dict)
    restricted: Mapping[str, Mapping[str, Route]] = field(default_factory=dict)  # caller -> name -> what is left of it

    def route(self, model: str, caller: Caller | None = None) -> Route:
        """The route for what a request calls `model`: a route, an alias, or a target.

        Raises UnknownModel, and Forbidden when the caller may not use it.
        """
        try:
            found = self.routes[model]
        except KeyError:
            names = ", ".join(sorted(self.routes))
            raise UnknownModel(f"No model {model[:100]!r}; models are {names}.", param="model") from None
        return self._seen_by(caller, found, model) if caller else found

    def models(self, caller: Caller) -> list[str]:
        """Every name that this caller may ask for."""
        return sorted(
            name for name, route in self.routes.items() if caller.routes is None or route.name in caller.routes
        )

    def _seen_by(self, caller: Caller, route: Route, model: str) -> Route:
        if caller.routes is not None and route.name not in caller.routes:
            names = ", ".join(sorted(caller.routes)) or "none"
            raise Forbidden(f"The caller {caller.name} may not use {model!r}; its routes are {names}.", param="model")
        if caller.targets is None:
            return route.seen_by(caller)
        seen = self.restricted[caller.name][route.name]
        if not seen.targets:
            raise Forbidden(f"The caller {caller.name} may not use any target of {model!r}.", param="model")
        return seen

    def references(self) -> Iterator[tuple[str, str]]:
        """Every secret reference with its path in the file."""
        for name, provider in self.file.providers.items():
            if provider.key is not None:
                yield f"providers.{name}.key", provider.key
        for name, caller in self.file.callers.items():
            for place, reference in caller.references():
                yield f"callers.{name}.{place}", reference


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Reads and checks the file. Addresses written `env:NAME` come from `environment`.

    Raises Misconfigured with every error found.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # with the mark that some editors put in front
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Misconfigured([f"{path}: cannot be read: {reason}; ROUTER_CONFIG names the routes file"]) from None
    return parse(text, environment, path.name)


def parse(text: str, environment: Mapping[str, str], name: str = "routes.toml") -> Config:
    """Checks the text of a routes file. Raises Misconfigured with every error found."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not all that is wrong with a text is a TOMLDecodeError
        raise Misconfigured([f"{name}: not valid TOML: {_placed(str(error), text)}"]) from None
    unset = list(fill_addresses(raw, environment))
    try:
        file, errors = RoutesFile.model_validate(raw), []
    except ValidationError as error:
        file, errors = RoutesFile(), [refusal(problem) for problem in error.errors(include_url=False)]
    if errors := [*unset, *errors, *dangling(raw)]:
        raise Misconfigured(errors)
    loaded = _config(_without_disabled(file))
    if errors := list(hopeless(loaded.targets, dict(_answering(loaded)))):
        raise Misconfigured(errors)
    return loaded


def _placed(message: str, text: str) -> str:
    """A parser's complaint with the line and column also where that is the end of the text."""
    lines = text.rstrip("\n").split("\n")
    return message.replace("(at end of document)", f"(at line {len(lines)}, column {len(lines[-1]) + 1}, the end)")


def schema() -> dict[str, Any]:
    """The JSON Schema of the routes file, from which editors complete."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RoutesFile.model_json_schema(),
        "title": "Routes file of the LLM router",
    }


def _without_disabled(file: RoutesFile) -> RoutesFile:
    return file.model_copy(update={"targets": {name: each for name, each in file.targets.items() if each.enabled}})


def _config(file: RoutesFile) -> Config:
    targets = {name: _target(name, settings) for name, settings in file.targets.items()}
    routes = {name: _route(name, RouteSettings(targets=[name]), targets) for name in targets}
    routes |= {name: _route(name, settings, targets) for name, settings in file.routes.items()}
    routes |= {alias: routes[name] for alias, name in file.aliases.items()}
    callers = {name: _caller(name, settings) for name, settings in file.callers.items()}
    restricted = {
        name: {route.name: _restricted(route.seen_by(caller), caller.targets) for route in routes.values()}
        for name, caller in callers.items()
        if caller.targets is not None
    }
    return Config(file, targets, routes, callers, restricted)


def _answering(loaded: Config) -> Iterator[tuple[str, dict[str, bool]]]:
    """For callers of listed targets and routes: which of their routes have any of their targets."""
    for name, left in loaded.restricted.items():
        listed = loaded.file.callers[name].routes or ()
        yield name, {route: bool(left[loaded.routes[route].name].targets) for route in listed}


def _caller(name: str, settings: CallerSettings) -> Caller:
    return Caller(
        name=name,
        role=settings.role,
        groups=tuple(settings.groups),
        routes=None if settings.routes is None else frozenset(settings.routes),
        targets=None if settings.targets is None else frozenset(settings.targets),
    )


def _restricted(route: Route, names: frozenset[str]) -> Route:
    """The route without the targets that are not among `names`."""
    left = tuple(target for target in route.targets if target.name in names)
    withheld = tuple(target.name for target in route.targets if target.name not in names)
    return replace(route, targets=left, withheld=withheld)


def _target(name: str, settings: TargetSettings) -> Target:
    return Target(
        name=name,
        provider=settings.provider,
        model=settings.model,
        context=settings.context,
        max_output=settings.max_output,
        supports=frozenset(settings.supports),
        price=Price(**settings.price.model_dump()) if settings.price else None,
        quality=MappingProxyType({str(kind): share for kind, share in settings.quality.items()}),
        weight=settings.weight,
    )


def _route(name: str, settings: RouteSettings, targets: Mapping[str, Target]) -> Route:
    members = tuple(targets[member] for member in settings.targets if member in targets)  # the others are disabled
    groups = {group: _overridden(name, settings, each, targets) for group, each in settings.groups.items()}
    callers = {caller: _overridden(name, settings, each, targets) for caller, each in settings.callers.items()}
    return Route(name, members, settings, groups, callers)


def _overridden(name: str, settings: RouteSettings, override: RouteOverride, targets: Mapping[str, Target]) -> Route:
    changes: dict[str, Any] = {key: value for key, value in override if value is not None}
    if override.targets is not None and override.tasks is None:
        changes["tasks"] = {
            kind: [member for member in listed if member in override.targets] for kind, listed in settings.tasks.items()
        }
    return _route(name, settings.model_copy(update={**changes, "groups": {}, "callers": {}}), targets)
