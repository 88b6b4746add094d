"""The routes file: read, checked as a whole, and refused with every error at the path its author wrote.

The settings of a part live beside the part; here they are only put together.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from routing.breaker_state import BreakerSettings
from routing.errors import Misconfigured, UnknownModel
from routing.keeper import HealthSettings
from routing.providers.azure_openai import AzureOpenAISettings
from routing.providers.ollama import OllamaSettings
from routing.providers.openai import OpenAISettings
from routing.retries import RetrySettings
from routing.settings import Name, SecretReference, Settings
from routing.types import Feature, Price, Role, Target, TaskKind
from routing.wire import path_of

StrategyName = Literal["task"]
AnyProvider = Annotated[OpenAISettings | AzureOpenAISettings | OllamaSettings, Field(discriminator="type")]
Share = Annotated[float, Field(ge=0, le=1)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceSettings(Settings):
    """USD per million tokens."""

    input: Usd
    output: Usd
    cached_input: Usd | None = None
    reasoning: Usd | None = None


class TargetSettings(Settings):
    """`[targets.NAME]`: one model at one provider."""

    provider: str
    model: str = Field(min_length=1)
    context: int | None = Field(default=None, ge=1)
    max_output: int | None = Field(default=None, ge=1)
    supports: list[Feature] = ["tools", "json_schema"]
    price: PriceSettings | None = None
    quality: dict[TaskKind | Literal["default"], Share] = {}
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    breaker: BreakerSettings | None = None  # left out: the file's own [breaker]


class FallbackSettings(Settings):
    """When the next target may be asked although the request itself was refused."""

    on_content_refused: bool = False


class RouteSettings(Settings):
    """`[routes.NAME]`: what a client writes as `model`. Times in seconds."""

    strategy: StrategyName = "task"
    targets: list[str] = Field(min_length=1)
    tasks: dict[TaskKind, list[str]] = {}
    deadline_seconds: float = Field(default=200.0, gt=0, lt=220)  # all attempts; the load balancer hangs up at 230 s
    attempt_seconds: float = Field(default=100.0, gt=0)  # one attempt, up to the reply or a stream's first token
    first_token_seconds: float = Field(default=60.0, gt=0)
    idle_seconds: float = Field(default=60.0, gt=0)  # between two pieces of a stream
    stream_seconds: float = Field(default=1_500.0, gt=0, lt=1_800)  # a whole stream; the host stops us at 1,800 s
    retry: RetrySettings = RetrySettings()
    fallback: FallbackSettings = FallbackSettings()


class CallerSettings(Settings):
    """`[callers.NAME]`: who may ask."""

    key: SecretReference
    role: Role = "user"


class ServerSettings(Settings):
    """`[server]`."""

    max_body_bytes: int = Field(default=20 * 1024 * 1024, ge=1_024, le=100 * 1024 * 1024)
    keepalive_seconds: float = Field(default=15.0, gt=0, le=60)  # of silence before a comment is sent to the caller


class RoutesFile(Settings):
    """The whole file."""

    server: ServerSettings = ServerSettings()
    breaker: BreakerSettings = BreakerSettings()
    health: HealthSettings = HealthSettings()
    providers: dict[Name, AnyProvider] = {}
    targets: dict[Name, TargetSettings] = {}
    routes: dict[Name, RouteSettings] = {}
    aliases: dict[str, str] = {}
    callers: dict[Name, CallerSettings] = {}


@dataclass(frozen=True, slots=True)
class Route:
    """A route as a request meets it: a named one, or a single target asked for by name."""

    name: str
    targets: tuple[Target, ...]
    settings: RouteSettings


@dataclass(frozen=True)
class Config:
    """A routes file that has been found good."""

    file: RoutesFile
    targets: Mapping[str, Target] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)  # by every name a request may ask for

    def route(self, model: str) -> Route:
        """The route for what a request calls `model`: a route, an alias, or a target. Raises UnknownModel."""
        try:
            return self.routes[model]
        except KeyError:
            names = ", ".join(sorted(self.routes))
            raise UnknownModel(f"No model {model[:100]!r}; models are {names}.", param="model") from None

    def references(self) -> Iterator[tuple[str, str]]:
        """Every secret reference with its path in the file."""
        for name, provider in self.file.providers.items():
            if provider.key is not None:
                yield f"providers.{name}.key", provider.key
        for name, caller in self.file.callers.items():
            yield f"callers.{name}.key", caller.key


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Reads and checks the file. Addresses written `env:NAME` come from `environment`.

    Raises Misconfigured with every error found.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Misconfigured([f"{path}: cannot be read: {reason}; ROUTER_CONFIG names the routes file"]) from None
    return parse(text, environment, path.name)


def parse(text: str, environment: Mapping[str, str], name: str = "routes.toml") -> Config:
    """Checks the text of a routes file. Raises Misconfigured with every error found."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured([f"{name}: not valid TOML: {error}"]) from None
    unset = list(_fill_addresses(raw, environment))
    try:
        file, errors = RoutesFile.model_validate(raw), []
    except ValidationError as error:
        file, errors = RoutesFile(), [_refusal(problem) for problem in error.errors(include_url=False)]
    if errors := [*unset, *errors, *_dangling(raw)]:
        raise Misconfigured(errors)
    return _config(file)


def schema() -> dict[str, Any]:
    """The JSON Schema of the routes file, from which editors complete."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RoutesFile.model_json_schema(),
        "title": "Routes file of the LLM router",
    }


def _config(file: RoutesFile) -> Config:
    targets = {name: _target(name, settings) for name, settings in file.targets.items()}
    routes = {name: _route(name, [name], RouteSettings(targets=[name]), targets) for name in targets}
    routes |= {name: _route(name, settings.targets, settings, targets) for name, settings in file.routes.items()}
    routes |= {alias: routes[name] for alias, name in file.aliases.items()}
    return Config(file, targets, routes)


def _target(name: str, settings: TargetSettings) -> Target:
    return Target(
        name=name,
        provider=settings.provider,
        model=settings.model,
        context=settings.context,
        max_output=settings.max_output,
        supports=frozenset(settings.supports),
        price=Price(**settings.price.model_dump()) if settings.price else None,
        quality={str(kind): share for kind, share in settings.quality.items()},
        weight=settings.weight,
    )


def _route(name: str, members: list[str], settings: RouteSettings, targets: Mapping[str, Target]) -> Route:
    return Route(name, tuple(targets[member] for member in members), settings)


_NAMES = "names are letters, digits, '.', '_' and '-', at most 63, and begin with a letter or digit"
_PROVIDER_TYPES = ("openai", "azure_openai", "anthropic", "ollama")


def _refusal(problem: Mapping[str, Any]) -> str:
    """One violation as `path: what is wrong`, with the path as it stands in the file."""
    location = list(problem["loc"])
    if location[:1] == ["providers"] and len(location) > 2 and location[2] in _PROVIDER_TYPES:
        del location[2]  # which kind of provider it was checked as is no key of the file
    if location[-1:] == ["[key]"]:
        what = problem["msg"] if problem["type"] == "literal_error" else _NAMES
        return f"{path_of(tuple(location[:-1]))}: {what}"
    path = path_of(tuple(location))
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{path}: unknown key{_did_you_mean(str(location[-1]))}"
    if problem["type"] == "missing":
        return f"{path}: is missing"
    return f"{path}: {problem['msg'].removeprefix('Value error, ')}"


def _did_you_mean(key: str) -> str:
    found = difflib.get_close_matches(key, _known_keys(), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _known_keys() -> set[str]:
    tables = [RoutesFile.model_json_schema(), *RoutesFile.model_json_schema()["$defs"].values()]
    return {key for table in tables for key in table.get("properties", {})}


def _fill_addresses(raw: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
    """Replaces a provider's `env:NAME` address by the app setting's value; yields those that are not set."""
    for name, provider in _table(raw, "providers").items():
        for key in ("base_url", "endpoint"):
            value = _table({"": provider}, "").get(key)
            if isinstance(value, str) and value.startswith("env:"):
                setting = value.removeprefix("env:")
                provider[key] = environment.get(setting, "http://unset")
                if setting not in environment:
                    yield f"providers.{name}.{key}: the app setting {setting} is not set"


def _dangling(raw: Mapping[str, Any]) -> Iterator[str]:
    """Names that lead nowhere. Reads the raw tables, so that they are found beside every other error."""
    providers, targets, routes = (_table(raw, name) for name in ("providers", "targets", "routes"))
    for name, target in targets.items():
        yield from _unknown(f"targets.{name}.provider", _table({"": target}, "").get("provider"), "provider", providers)
    for name, route in routes.items():
        yield from _dangling_route(name, _table({"": route}, ""), targets)
        if name in targets:
            yield f"routes.{name}: a target has the same name"
    for alias, name in _table(raw, "aliases").items():
        yield from _unknown(f"aliases.{alias}", name, "route or target", {**routes, **targets})
        if alias in routes or alias in targets:
            yield f"aliases.{alias}: a route or target has the same name"


def _dangling_route(name: str, route: Mapping[str, Any], targets: Mapping[str, Any]) -> Iterator[str]:
    members = _list(route.get("targets"))
    for place, member in enumerate(members):
        yield from _unknown(f"routes.{name}.targets[{place}]", member, "target", targets)
        if member in members[:place]:
            yield f"routes.{name}.targets[{place}]: {member!r} stands there twice"
    for kind, listed in _table(route, "tasks").items():
        for place, member in enumerate(_list(listed)):
            if isinstance(member, str) and member not in members:
                yield f'routes.{name}.tasks.{kind}[{place}]: "{member}" is not among the targets of this route'


def _unknown(path: str, name: Any, what: str, known: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(name, str) and name not in known:
        yield f'{path}: no {what} "{name}"; {what}s are {", ".join(known) or "not defined yet"}'


def _table(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = raw.get(name)
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
