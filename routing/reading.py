"""Reads JSON whose shape depends on its own `type`, naming the place of what is not as it must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from routing.errors import InvalidRequest

T = TypeVar("T")
_NAMES = {str: "a string", dict: "an object", list: "an array", bool: "true or false", int: "a whole number"}


def refused(path: str, why: str, code: str | None = None) -> InvalidRequest:
    """What is wrong at `path`."""
    return InvalidRequest(f"{path}: {why}.", param=path, code=code)


def member(value: Mapping[str, Any], name: str, kind: type[T], path: str) -> T:
    """`value[name]`. Raises InvalidRequest when it is missing or no `kind`."""
    found = maybe(value, name, kind, path)
    if found is None:
        raise refused(f"{path}.{name}", "is missing")
    return found


def maybe(value: Mapping[str, Any], name: str, kind: type[T], path: str = "") -> T | None:
    """`value[name]`, None where there is none. Raises InvalidRequest when it is no `kind`."""
    found = value.get(name)
    if found is None or isinstance(found, kind):
        return found
    raise refused(f"{path}.{name}" if path else name, f"should be {_NAMES.get(kind, kind.__name__)}")


def objects(value: Mapping[str, Any], name: str, path: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    """The objects in the array `value[name]`, each with its path; nothing where there is none."""
    at = f"{path}.{name}" if path else name
    for place, entry in enumerate(maybe(value, name, list, path) or ()):
        if not isinstance(entry, dict):
            raise refused(f"{at}[{place}]", "should be an object")
        yield entry, f"{at}[{place}]"
