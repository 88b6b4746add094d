"""Finds the function that answers a method and a path, by the rules of the Azure Functions host.

Those are ASP.NET Core's route templates (https://learn.microsoft.com/aspnet/core/fundamentals/routing): letter case
and a trailing slash do not matter, literal segments win over constrained parameters, those over free ones, and
catch-alls come last. A wrong method is as unknown as a wrong path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

E = TypeVar("E")

METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
RESERVED = ("admin", "runtime")
CONSTRAINTS = {
    "int": r"[+-]?\d{1,10}",
    "long": r"[+-]?\d{1,19}",
    "bool": r"true|false",
    "alpha": r"[a-z]+",
    "guid": r"\{?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\}?",
    "decimal": r"[+-]?\d+(?:\.\d+)?",
    "double": r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?",
    "maxlength(0)": "",  # with `?` the only way to the root
}
_PARAMETER = re.compile(r"\{(?P<catch_all>\*{0,2})(?P<name>\w+)(?::(?P<constraint>[^}?]+))?(?P<optional>\?)?\}")


class RouteError(ValueError):
    """A route that the Functions host would refuse, or that this one cannot serve."""


@dataclass(frozen=True, slots=True)
class _Pattern(Generic[E]):
    order: tuple[int, ...]
    methods: frozenset[str]
    path: re.Pattern[str]
    endpoint: E


class RouteTable(Generic[E]):
    """Routes under one prefix. Paths without parameters, the common case, cost one look-up in a dictionary."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix.strip("/")
        self._exact: dict[tuple[str, str], E] = {}
        self._patterns: list[_Pattern[E]] = []

    def add(self, route: str, methods: Iterable[str], endpoint: E) -> None:
        """Register `route`, for all methods if none is named. RouteError when it is reserved, taken or unreadable."""
        route = route.strip("/")
        if route.lower().startswith(RESERVED):
            raise RouteError(f"route {route!r} starts with admin or runtime, which the Functions host keeps for itself")
        path = "/" + "/".join(part for part in (self._prefix, route) if part)
        allowed = frozenset(method.upper() for method in methods) or frozenset(METHODS)
        if "{" in path:
            self._add_pattern(path, allowed, endpoint)
        else:
            self._add_exact(path.lower(), allowed, endpoint)

    def find(self, method: str, path: str) -> tuple[E, dict[str, str]] | None:
        """The endpoint for a decoded path and the values of its parameters; None when nothing answers."""
        endpoint = self._exact.get((method, path))
        if endpoint is not None:
            return endpoint, {}
        path = path.rstrip("/") or "/"
        endpoint = self._exact.get((method, path.lower()))
        return (endpoint, {}) if endpoint is not None else self._find_pattern(method, path)

    def _find_pattern(self, method: str, path: str) -> tuple[E, dict[str, str]] | None:
        for pattern in self._patterns:
            if method in pattern.methods and (match := pattern.path.fullmatch(path)):
                return pattern.endpoint, {name: value for name, value in match.groupdict().items() if value is not None}
        return None

    def _add_exact(self, path: str, methods: frozenset[str], endpoint: E) -> None:
        for method in methods:
            if (method, path) in self._exact:
                raise RouteError(f"two functions answer {method} {path}")
            self._exact[method, path] = endpoint

    def _add_pattern(self, path: str, methods: frozenset[str], endpoint: E) -> None:
        segments = path.strip("/").split("/")
        expression = re.compile("".join(_segment_expression(segment) for segment in segments), re.IGNORECASE)
        if any(pattern.path == expression and pattern.methods & methods for pattern in self._patterns):
            raise RouteError(f"two functions answer {path}")
        order = tuple(_rank(segment) for segment in segments)
        self._patterns.append(_Pattern(order, methods, expression, endpoint))
        self._patterns.sort(key=lambda pattern: pattern.order)


def _rank(segment: str) -> int:
    """Literal 0, constrained parameter 1, free parameter 2, catch-all 3."""
    match = _PARAMETER.search(segment)
    if match is None:
        return 0
    return 3 if match["catch_all"] else 1 if match["constraint"] else 2


def _segment_expression(segment: str) -> str:
    whole = _PARAMETER.fullmatch(segment)
    if whole and whole["catch_all"]:
        return f"(?:/(?P<{whole['name']}>.*))?"
    expression, end = "/", 0
    for parameter in _PARAMETER.finditer(segment):
        expression += _literal(segment[end : parameter.start()]) + _parameter_expression(parameter)
        end = parameter.end()
    expression += _literal(segment[end:])
    return f"(?:{expression})?" if whole and whole["optional"] else expression


def _literal(text: str) -> str:
    if "{" in text or "}" in text:
        raise RouteError(f"cannot read the route segment {text!r}")
    return re.escape(text)


def _parameter_expression(parameter: re.Match[str]) -> str:
    constraint = parameter["constraint"]
    if constraint and constraint not in CONSTRAINTS:
        known = ", ".join(CONSTRAINTS)
        raise RouteError(f"the local host does not know the constraint {constraint!r}; it knows {known}")
    return f"(?P<{parameter['name']}>{CONSTRAINTS[constraint] if constraint else '[^/]+'})"
