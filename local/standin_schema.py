"""The smallest value a JSON Schema accepts, so that a stand-in's structured answers parse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_DEEP = 24  # levels after which a recursive schema takes whatever ends it


def instance(schema: object) -> Any:
    """A minimal instance of `schema`. Regular expressions (`pattern`) and negations are beyond it."""
    return _instance(schema, schema if isinstance(schema, dict) else {}, 0)


def _instance(schema: object, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict):  # `true` and rubbish accept anything
        return {}
    schema = _flat(schema, root)
    if "const" in schema:
        return schema["const"]
    if enum := schema.get("enum"):
        return enum[0]
    for choice in ("anyOf", "oneOf"):
        if branches := schema.get(choice):
            rest = {key: value for key, value in schema.items() if key != choice}
            return _instance(_merged(rest, _flat(_branch(branches, depth), root)), root, depth + 1)
    return _of_type(_type(schema, depth), schema, root, depth)


def _flat(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` with its references followed and its `allOf` joined."""
    flat = dict(schema)
    for _ in range(_DEEP):
        if isinstance(ref := flat.pop("$ref", None), str):
            flat = _merged(_resolved(ref, root), flat)
        elif parts := flat.pop("allOf", None):
            for part in parts:
                flat = _merged(flat, part)
        else:
            break
    return flat


def _resolved(ref: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    place: Any = root
    for step in ref.lstrip("#").strip("/").split("/"):
        if step:
            place = place.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(place, dict) else {}
    return place if isinstance(place, dict) else {}


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**one, **other}
    if "properties" in one and "properties" in other:
        joined["properties"] = {**one["properties"], **other["properties"]}
    if "required" in one and "required" in other:
        joined["required"] = [*one["required"], *other["required"]]
    return joined


def _branch(branches: list[Any], depth: int) -> dict[str, Any]:
    """The first branch; far down, the one that ends a recursion soonest."""
    usable = [branch for branch in branches if isinstance(branch, dict)] or [{}]
    if depth < _DEEP:
        return usable[0]
    return min(usable, key=lambda branch: ("$ref" in branch, branch.get("type") in ("object", "array")))


def _type(schema: Mapping[str, Any], depth: int) -> str:
    named = schema.get("type")
    if isinstance(named, list):
        return "null" if depth >= _DEEP and "null" in named else str(named[0])
    if isinstance(named, str):
        return named
    return "array" if "items" in schema else "object"


def _of_type(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if kind == "object":
        return _an_object(schema, root, depth)
    if kind == "array":
        count = min(int(schema.get("minItems", 0)), 1_000)
        return [_instance(schema.get("items", {}), root, depth + 1) for _ in range(count)]
    if kind == "string":
        return _a_string(schema)
    if kind in ("number", "integer"):
        return _a_number(kind, schema)
    return False if kind == "boolean" else None


def _an_object(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", ()) if depth < 2 * _DEEP else ()
    return {name: _instance(properties.get(name, {}), root, depth + 1) for name in dict.fromkeys(required)}


def _a_string(schema: Mapping[str, Any]) -> str:
    text = _FORMATS.get(schema.get("format", ""), "text")
    text = text.ljust(int(schema.get("minLength", 0)), "x")
    return text[: int(schema["maxLength"])] if "maxLength" in schema else text


def _a_number(kind: str, schema: Mapping[str, Any]) -> float:
    """0 if it fits, else the lowest allowed value above it, else the highest below."""
    whole = kind == "integer"
    step = schema.get("multipleOf") or (1 if whole else 0.5)
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    value: float = 0
    if low is not None and low > value:
        value = math.ceil(low / step) * step
    if above is not None and above >= value:
        value = (math.floor(above / step) + 1) * step
    if high is not None and high < value:
        value = math.floor(high / step) * step
    if below is not None and below <= value:
        value = (math.ceil(below / step) - 1) * step
    return int(value) if whole else value
