"""Why a routes file is refused: every error, each at the path its author wrote."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from routing import tokens
from routing.routes_file import RoutesFile
from routing.types import Target

SHORTEST_REQUEST = tokens.of_request({"messages": [{"role": "user", "content": ""}]})
_NAMES = "names are letters, digits, '.', '_' and '-', at most 63, and begin with a letter or digit"
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_PLAINLY = {
    "missing": "is missing",
    "model_type": "should be a table",
    "model_attributes_type": "should be a table",
    "dict_type": "should be a table",
    "dataclass_type": "should be a table",
    "union_tag_not_found": "is missing",
}


def refusal(problem: Mapping[str, Any]) -> str:
    """One violation as `path: what is wrong`, with the path as it stands in the file."""
    kind, location = problem["type"], list(problem["loc"])
    if location[0] == "providers" and len(location) > 2 and location[2] != "[key]":
        del location[2]  # which kind of provider it was checked as is no key of the file
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        location.append("type")
    if location[-1] == "[key]" and kind not in _UNKNOWN_KEY:
        location.pop()
    return f"{_path(*location)}: {_what(kind, problem, location[-1])}"


def _what(kind: str, problem: Mapping[str, Any], key: int | str) -> str:
    if kind == "union_tag_invalid":
        known = problem["ctx"]["expected_tags"].replace("'", "")
        return f'no provider type "{problem["ctx"]["tag"]}"; types are {known}'
    if kind in _UNKNOWN_KEY:
        return f"unknown key{_did_you_mean(str(key))}"
    if kind == "string_pattern_mismatch" and problem["loc"][-1] == "[key]":
        return _NAMES
    return _PLAINLY.get(kind) or problem["msg"].removeprefix("Value error, ")


def _path(*steps: int | str) -> str:
    """A place in the file; keys that TOML wants quoted are quoted."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in steps).removeprefix(".")


def _key(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else f'"{name}"'


def _did_you_mean(key: str) -> str:
    found = difflib.get_close_matches(key, _known_keys() - {key}, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


@cache
def _known_keys() -> frozenset[str]:
    document = RoutesFile.model_json_schema()
    return frozenset(key for table in (document, *document["$defs"].values()) for key in table.get("properties", {}))


def fill_addresses(raw: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[str]:
    """Replaces a provider's `env:NAME` address by the app setting's value; yields those that are not set."""
    for name, provider in _tables(raw, "providers"):
        for key in ("base_url", "endpoint"):
            value = provider.get(key)
            if isinstance(value, str) and value.startswith("env:"):
                setting = value.removeprefix("env:")
                provider[key] = environment.get(setting) or "http://unset"
                if not environment.get(setting):
                    yield f"{_path('providers', name, key)}: the app setting {setting} is not set"


def dangling(raw: Mapping[str, Any]) -> Iterator[str]:
    """Names that lead nowhere. Reads the raw tables, so that they are found beside every other error."""
    providers, targets, routes = (_table(raw, name) for name in ("providers", "targets", "routes"))
    for name, target in _tables(raw, "targets"):
        yield from _unknown(_path("targets", name, "provider"), target.get("provider"), "provider", providers)
    for name, route in _tables(raw, "routes"):
        yield from _dangling_route(name, route, targets)
        if name in targets:
            yield f"{_path('routes', name)}: a target has the same name"
    for alias, name in _table(raw, "aliases").items():
        yield from _unknown(_path("aliases", alias), name, "route or target", {**routes, **targets})
        if alias in routes or alias in targets:
            yield f"{_path('aliases', alias)}: a route or target has the same name"
    yield from _disabled(raw)
    yield from _embeddings(raw)
    yield from _dangling_callers(raw)
    yield from _dangling_overrides(raw)
    yield from _shared_keys(raw)


def _disabled(raw: Mapping[str, Any]) -> Iterator[str]:
    """What leads to disabled targets and to nobody else."""
    off = {name for name, target in _tables(raw, "targets") if target.get("enabled") is False}
    for name, route in _tables(raw, "routes"):
        yield from _all_disabled(route, off, "routes", name)
        for kind in ("groups", "callers"):
            for whom, override in _tables(route, kind):
                yield from _all_disabled(override, off, "routes", name, kind, whom)
        yield from _is_disabled(_table(route, "detector").get("ask"), off, "routes", name, "detector", "ask")
    for alias, name in _table(raw, "aliases").items():
        yield from _is_disabled(name, off, "aliases", alias)
    for caller, table in _tables(raw, "callers"):
        for place, listed in enumerate(_list(table.get("routes"))):
            yield from _is_disabled(listed, off, "callers", caller, "routes", place)


def _all_disabled(table: Mapping[str, Any], off: set[str], *steps: str) -> Iterator[str]:
    members = [member for member in _list(table.get("targets")) if isinstance(member, str)]
    if members and off.issuperset(members):
        yield f"{_path(*steps, 'targets')}: all of them are disabled; the route could never answer"


def _is_disabled(name: Any, off: set[str], *steps: int | str) -> Iterator[str]:
    if isinstance(name, str) and name in off:
        yield f'{_path(*steps)}: the target "{name}" is disabled'


def _embeddings(raw: Mapping[str, Any]) -> Iterator[str]:
    """Targets that cannot do what they claim, and routes that would mix vectors of different spaces."""
    providers, targets = _table(raw, "providers"), dict(_tables(raw, "targets"))
    for name, target in targets.items():
        supports = _list(target.get("supports"))
        if target.get("embedding_space") is not None and "embeddings" not in supports:
            yield f'{_path("targets", name, "embedding_space")}: needs "embeddings" among supports'
        if _table(providers, str(target.get("provider"))).get("type") == "anthropic":
            for place, feature in enumerate(supports):
                if feature in ("embeddings", "completions"):
                    yield f"{_path('targets', name, 'supports', place)}: a provider of type anthropic has no {feature}"
    for name, route in _tables(raw, "routes"):
        yield from _mixed(_list(route.get("targets")), targets, "routes", name)
        for kind in ("groups", "callers"):
            for whom, override in _tables(route, kind):
                yield from _mixed(_list(override.get("targets")), targets, "routes", name, kind, whom)


def _mixed(members: list[Any], targets: Mapping[str, Mapping[str, Any]], *steps: str) -> Iterator[str]:
    listed = [(place, targets.get(member, {})) for place, member in enumerate(members) if isinstance(member, str)]
    embedding = [(place, target) for place, target in listed if "embeddings" in _list(target.get("supports"))]
    first = embedding[0][1].get("embedding_space") if embedding else None
    for place, target in embedding if len(embedding) > 1 else ():
        path, space = _path(*steps, "targets", place), target.get("embedding_space")
        if space is None:
            yield f"{path}: states no embedding_space; targets of one route must make the same vectors"
        elif first is not None and space != first:
            yield f'{path}: has the embedding_space "{space}", the first target "{first}"; a route is for one of them'


def hopeless(targets: Mapping[str, Target], answering: Mapping[str, Mapping[str, bool]]) -> Iterator[str]:
    """What is well written and could never answer. `answering`: caller -> route it lists -> any target left of it?"""
    for name, target in targets.items():
        if target.context is not None and target.context <= SHORTEST_REQUEST:
            yield f"{_path('targets', name, 'context')}: fits no request; the shortest has {SHORTEST_REQUEST} tokens"
    for caller, routes in answering.items():
        for place, answers in enumerate(routes.values()):
            if not answers:
                route = list(routes)[place]
                yield f'{_path("callers", caller, "routes", place)}: "{route}" has none of the targets of this caller'


def _dangling_callers(raw: Mapping[str, Any]) -> Iterator[str]:
    """What callers may use, who the app roles stand for, and callers that nothing leads to."""
    callers, targets, roles = _table(raw, "callers"), _table(raw, "targets"), _table(_table(raw, "entra"), "roles")
    usable = {"routes": ("route or target", {**_table(raw, "routes"), **targets}), "targets": ("target", targets)}
    for name, caller in _tables(raw, "callers"):
        for kind, (what, known) in usable.items():
            listed = _list(caller.get(kind))
            if kind == "routes" and caller.get(kind) == []:
                yield f"{_path('callers', name, kind)}: allows nothing; leave it out to allow all"
            yield from _twice(listed, "callers", name, kind)
            for place, member in enumerate(listed):
                yield from _unknown(_path("callers", name, kind, place), member, what, known)
        if not caller.get("key") and not caller.get("keys") and name not in roles.values():
            yield f"{_path('callers', name)}: needs key or keys, or an app role under [entra.roles]"
    for role, name in roles.items():
        yield from _unknown(_path("entra", "roles", role), name, "caller", callers)


def _dangling_route(name: str, route: Mapping[str, Any], targets: Mapping[str, Any]) -> Iterator[str]:
    members = _list(route.get("targets"))
    yield from _twice(members, "routes", name, "targets")
    for place, member in enumerate(members):
        yield from _unknown(_path("routes", name, "targets", place), member, "target", targets)
    yield from _dangling_tasks(route, members, "routes", name)
    asked = _table(route, "detector").get("ask")
    yield from _unknown(_path("routes", name, "detector", "ask"), asked, "target", targets)
    for kind in ("groups", "callers"):
        for whom, override in _tables(route, kind):
            steps = ("routes", name, kind, whom)
            own = _list(override.get("targets"))
            yield from _twice(own, *steps, "targets")
            for place, member in enumerate(own):
                yield from _unknown(_path(*steps, "targets", place), member, "target", targets)
            yield from _dangling_tasks(override, own or members, *steps)


def _dangling_overrides(raw: Mapping[str, Any]) -> Iterator[str]:
    """Overrides of a route that would never apply."""
    callers = _table(raw, "callers")
    groups = {str(group): True for _, caller in _tables(raw, "callers") for group in _list(caller.get("groups"))}
    for name, route in _tables(raw, "routes"):
        for whom in _table(route, "callers"):
            yield from _unknown(_path("routes", name, "callers", whom), whom, "caller", callers)
        for group in _table(route, "groups"):
            yield from _unknown(_path("routes", name, "groups", group), group, "group", groups)
    for group in _table(raw, "groups"):
        yield from _unknown(_path("groups", group), group, "group", groups)


def _dangling_tasks(table: Mapping[str, Any], members: list[Any], *steps: str) -> Iterator[str]:
    for kind, listed in _table(table, "tasks").items():
        if listed == []:
            yield f"{_path(*steps, 'tasks', kind)}: lists no target; leave it out for the order of the route"
        yield from _twice(_list(listed), *steps, "tasks", kind)
        for place, member in enumerate(_list(listed)):
            if isinstance(member, str) and member not in members:
                yield f'{_path(*steps, "tasks", kind, place)}: "{member}" is not among the targets of this route'


def _shared_keys(raw: Mapping[str, Any]) -> Iterator[str]:
    """Callers with the same key could not be told apart."""
    owners: dict[str, str] = {}
    for name, caller in _tables(raw, "callers"):
        yield from _twice(_list(caller.get("keys")), "callers", name, "keys")
        listed = [(_path("callers", name, "keys", place), key) for place, key in enumerate(_list(caller.get("keys")))]
        for path, key in [(_path("callers", name, "key"), caller.get("key")), *listed]:
            if isinstance(key, str) and owners.setdefault(key, name) != name:
                yield f"{path}: {_path('callers', owners[key])} has the same key"


def _unknown(path: str, name: Any, what: str, known: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(name, str) and name not in known:
        plural = what.replace(" or ", "s and ") + "s"
        yield f'{path}: no {what} "{name}"; {plural} are {", ".join(known) or "not defined yet"}'


def _twice(names: list[Any], *steps: str) -> Iterator[str]:
    for place, name in enumerate(names):
        if name in names[:place]:
            yield f'{_path(*steps, place)}: "{name}" stands there twice'


def _table(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = raw.get(name)
    return found if isinstance(found, dict) else {}


def _tables(raw: Mapping[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The named tables under `[name]`; what is none there is refused elsewhere."""
    return ((key, value) for key, value in _table(raw, name).items() if isinstance(value, dict))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
