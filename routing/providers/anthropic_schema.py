"""A JSON schema as Anthropic's structured outputs take it.

They know a part of JSON Schema, refuse the rest of it, and insist on closed objects. A constraint that they do not know
becomes words in the description of what it constrains, as in Anthropic's own SDKs, and is reported. Source: "Structured
outputs" in Anthropic's documentation, November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from routing.providers.anthropic_messages import refusal

Schema = Mapping[str, Any]

_PLAIN = frozenset(
    {"$ref", "$schema", "additionalProperties", "const", "description", "enum", "required", "title", "type"}
)
_BY_NAME = frozenset({"$defs", "definitions", "properties"})
# Keyword -> the values with which it may be said.
_TAKEN: Mapping[str, tuple[Any, ...]] = {
    "format": ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"),
    "minItems": (0, 1),
}


@dataclass(frozen=True, slots=True)
class Schemas:
    """Rewrites the schemas in one field of the request, `field`; what becomes words is added to `dropped`."""

    field: str
    dropped: list[str]

    def known(self, schema: Schema, path: str) -> dict[str, Any]:
        """The schema at `path`. Raises BadRequest for an object open to other names, which no words would close."""
        if isinstance(schema.get("oneOf"), list) and "anyOf" not in schema:
            self.dropped.append(f"{self.field}.oneOf")
            schema = {"anyOf" if name == "oneOf" else name: value for name, value in schema.items()}
        words: list[str] = []
        known = dict(self._keywords(schema, path, words))
        if _is_object(schema):
            known["additionalProperties"] = _closed(schema, path)
        if words:
            described = f"{known['description']} " if isinstance(known.get("description"), str) else ""
            known["description"] = f"{described}({', '.join(words)})"
        return known

    def _keywords(self, schema: Schema, path: str, words: list[str]) -> Iterator[tuple[str, Any]]:
        """The keywords that may be said, each with its value; the others are told in `words`."""
        for keyword, value in schema.items():
            at = f"{path}.{keyword}"
            if keyword in _BY_NAME and isinstance(value, dict):
                yield keyword, {name: self._inner(entry, f"{at}.{name}") for name, entry in value.items()}
            elif keyword in ("allOf", "anyOf") and isinstance(value, list):
                yield keyword, [self._inner(entry, f"{at}[{place}]") for place, entry in enumerate(value)]
            elif keyword == "items":
                yield keyword, self._inner(value, at)
            elif keyword in _PLAIN or value in _TAKEN.get(keyword, ()):
                yield keyword, value
            else:
                self.dropped.append(f"{self.field}.{keyword}")
                words.append(f"{keyword}: {to_json(value).decode()}")

    def _inner(self, schema: Any, path: str) -> Any:
        return self.known(schema, path) if isinstance(schema, dict) else schema


def _is_object(schema: Schema) -> bool:
    kinds = schema.get("type")
    return kinds == "object" or (isinstance(kinds, list) and "object" in kinds) or "properties" in schema


def _closed(schema: Schema, path: str) -> bool:
    """False, which `additionalProperties` has to be."""
    if schema.get("additionalProperties", False) is not False:
        raise refusal(
            f"{path}.additionalProperties",
            "must be false: objects are closed at Anthropic",
            code="unsupported_parameter",
        )
    if "properties" not in schema and "additionalProperties" not in schema:
        raise refusal(f"{path}.properties", "is missing: objects are closed at Anthropic", code="unsupported_parameter")
    return False
