"""Bicep files as tests read them: what they declare, and what an expression comes to for given parameters.

Only the parts of the language that infra/ uses. The grammar is tree-sitter's; it binds `x => x.y` as `(x => x).y`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tree_sitter
import tree_sitter_bicep
from tree_sitter import Node

_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language()))
_COMMENTS = {"comment", "diagnostic_comment"}
Scope = MutableMapping[str, Any]


class Failed(Exception):
    """What `fail()` said."""


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    decorators: Mapping[str, list[Any]]
    default: Node | None


@dataclass(frozen=True)
class Resource:
    """A resource, nested or not. `body` is the object between its braces."""

    symbol: str
    type: str  # of a nested one: the last part of it only
    version: str | None
    existing: bool
    body: Node
    node: Node

    def property(self, *path: str) -> Node:
        """The expression at that path. Raises KeyError."""
        return at(self.body, *path)

    def existence(self) -> list[Node]:
        """What says which resources there are: condition, loop, name and scope."""
        return _existence(self.node, self.body)


@dataclass(frozen=True)
class Module:
    symbol: str
    path: str
    body: Node
    node: Node

    def existence(self) -> list[Node]:
        """What says which modules there are: condition, loop, name and scope."""
        return _existence(self.node, self.body)


class Bicep:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.root = _PARSER.parse(self.text.encode()).root_node

    def faults(self) -> list[str]:
        """Where the text is not Bicep."""
        wrong = [node for node in walk(self.root) if node.type == "ERROR" or node.is_missing]
        return [f"{self.path.name}:{node.start_point[0] + 1}: {text(node)[:60]!r}" for node in wrong]

    def parameters(self) -> list[Parameter]:
        return [self._parameter(node) for node in self._declared("parameter_declaration")]

    def variables(self) -> dict[str, Node]:
        return {text(named(node)[0]): named(node)[-1] for node in self._declared("variable_declaration")}

    def outputs(self) -> dict[str, Node]:
        return {text(named(node)[0]): named(node)[-1] for node in self._declared("output_declaration")}

    def resources(self) -> list[Resource]:
        found = (node for node in walk(self.root) if node.type == "resource_declaration")
        return [_resource(node) for node in found]

    def modules(self) -> list[Module]:
        found = self._declared("module_declaration")
        return [Module(text(named(node)[0]), _literal(named(node)[1]), _body(node), node) for node in found]

    def declared(self) -> list[Resource | Module]:
        return [*self.resources(), *self.modules()]

    def described(self) -> list[str]:
        """Parameters, outputs and types without a description."""
        kinds = {"parameter_declaration", "output_declaration", "type_declaration"}
        nodes = [node for node in self.root.children if node.type in kinds]
        return [text(named(node)[0]) for node in nodes if "description" not in _decorators(node)]

    def scope(self, given: Scope) -> dict[str, Any]:
        """Everything that may be named: the parameters, given or by default, and the variables."""
        scope = _Lazy(given)
        scope.later |= {each.name: each.default for each in self.parameters() if each.default is not None}
        scope.later |= self.variables()
        return scope

    def _declared(self, kind: str) -> list[Node]:
        return [node for node in self.root.children if node.type == kind]

    def _parameter(self, node: Node) -> Parameter:
        name, kind, *default = named(node)
        return Parameter(text(name), text(kind), _decorators(node), default[0] if default else None)


class _Lazy(dict[str, Any]):
    """Values that are worked out when they are first asked for."""

    def __init__(self, given: Scope) -> None:
        super().__init__(given)
        self.later: dict[str, Node] = {}

    def __missing__(self, name: str) -> Any:
        self[name] = evaluate(self.later[name], self)
        return self[name]


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def named(node: Node) -> list[Node]:
    return [child for child in node.children if child.is_named and child.type not in _COMMENTS]


def text(node: Node) -> str:
    return (node.text or b"").decode()


def at(node: Node, *path: str) -> Node:
    """The expression at that path of nested objects. Raises KeyError."""
    for name in path:
        entries = {_key(entry): named(entry)[-1] for entry in named(node) if entry.type == "object_property"}
        node = entries[name]
    return node


def evaluate(node: Node, scope: Scope) -> Any:
    """What the expression comes to. Raises Failed where it says fail()."""
    return _FORMS[node.type](node, scope)


def _resource(node: Node) -> Resource:
    kind, _, version = _literal(named(node)[1]).partition("@")
    existing = any(child.type == "existing" for child in node.children)
    return Resource(text(named(node)[0]), kind, version or None, existing, _body(node), node)


def _existence(node: Node, body: Node) -> list[Node]:
    said = [named(entry)[-1] for entry in named(body) if _is_name(entry)]
    around: Node | None = body.parent
    while around is not None and around != node:
        said += [child for child in named(around) if child.type not in ("object", "if_statement", "for_statement")]
        around = around.parent
    return said


def _is_name(entry: Node) -> bool:
    return entry.type == "object_property" and _key(entry) in ("name", "scope", "parent")


def _body(node: Node) -> Node:
    """The object of a declaration, also of one under a condition or in a loop."""
    last = named(node)[-1]
    return last if last.type == "object" else _body(last)


def _decorators(node: Node) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    before = node.prev_named_sibling
    while before is not None and before.type in {"decorators", *_COMMENTS}:
        for call in (named(each)[0] for each in named(before)):
            name, arguments = named(call)
            found[text(name)] = [evaluate(argument, {}) for argument in named(arguments)]
        before = before.prev_named_sibling if before.type in _COMMENTS else None
    return found


def _key(entry: Node) -> str:
    key = named(entry)[0]
    return _literal(key) if key.type == "string" else text(key)


def _literal(node: Node) -> str:
    return str(_string(node, {}))


def _string(node: Node, scope: Scope) -> str:
    """The pieces between the quotes, blanks next to an interpolation included, which are no nodes."""
    source, start = node.text or b"", node.start_byte
    inner = [child for child in node.children if child.type in ("interpolation", "escape_sequence")]
    parts, here = [], 1
    for child in inner:
        parts.append(source[here : child.start_byte - start].decode())
        if child.type == "interpolation":
            value = evaluate(named(child)[0], scope)
            parts.append(str(value).lower() if isinstance(value, bool) else str(value))
        else:
            parts.append(text(child).removeprefix("\\"))
        here = child.end_byte - start
    return "".join(parts) + source[here:-1].decode()


def _object(node: Node, scope: Scope) -> dict[str, Any]:
    return {_key(entry): evaluate(named(entry)[-1], scope) for entry in named(node)}


def _array(node: Node, scope: Scope) -> list[Any]:
    entries = named(node)
    return [evaluate(entry, scope) for entry in entries]


def _ternary(node: Node, scope: Scope) -> Any:
    condition, yes, no = named(node)
    return evaluate(yes if evaluate(condition, scope) else no, scope)


def _binary(node: Node, scope: Scope) -> Any:
    left, right = named(node)
    sign = next(text(child) for child in node.children if not child.is_named)
    if sign in ("&&", "||"):
        first = evaluate(left, scope)
        return evaluate(right, scope) if first == (sign == "&&") else first
    operators: dict[str, Callable[[Any, Any], bool]] = {
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        ">": lambda a, b: a > b,
        "<": lambda a, b: a < b,
    }
    return operators[sign](evaluate(left, scope), evaluate(right, scope))


def _member(node: Node, scope: Scope) -> Any:
    holder, name = named(node)
    value = evaluate(holder, scope)
    if callable(value):
        return lambda given: value(given)[text(name)]
    return value[text(name)]


def _lambda(node: Node, scope: Scope) -> Callable[[Any], Any]:
    parameter, body = named(node)
    return lambda given: evaluate(body, ChainMap({text(parameter): given}, scope))


def _call(node: Node, scope: Scope) -> Any:
    name, arguments = named(node)
    return _FUNCTIONS[text(name)](*(evaluate(argument, scope) for argument in named(arguments)))


def _fail(message: str) -> Any:
    raise Failed(message)


def _union(first: Any, *others: Any) -> Any:
    """Of objects, the later ones' values; of arrays, every entry once."""
    if isinstance(first, list):
        return list(dict.fromkeys(entry for array in (first, *others) for entry in array))
    return {name: value for each in (first, *others) for name, value in each.items()}


def _to_object(
    entries: list[Any], key: Callable[[Any], str], value: Callable[[Any], Any] = lambda entry: entry
) -> dict[str, Any]:
    return {key(entry): value(entry) for entry in entries}


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "concat": lambda *arrays: [entry for array in arrays for entry in array],
    "contains": lambda holder, entry: entry in holder,
    "empty": lambda value: not value,
    "endsWith": str.endswith,
    "environment": lambda: {"name": "AzureCloud"},
    "fail": _fail,
    "filter": lambda entries, wanted: [entry for entry in entries if wanted(entry)],
    "first": lambda entries: entries[0],
    "int": int,
    "intersection": lambda first, second: [entry for entry in first if entry in second],
    "items": lambda value: [{"key": key, "value": value[key]} for key in sorted(value)],
    "join": lambda entries, between: between.join(entries),
    "last": lambda entries: entries[-1],
    "length": len,
    "loadTextContent": lambda path: f"<{path}>",
    "map": lambda entries, made: [made(entry) for entry in entries],
    "objectKeys": lambda value: sorted(value),
    "range": lambda start, count: list(range(start, start + count)),
    "replace": lambda value, old, new: value.replace(old, new),
    "resourceGroup": lambda: {"id": "/group", "location": "westeurope"},
    "split": str.split,
    "string": str,
    "substring": lambda value, start, size: value[start : start + size],
    "toLower": str.lower,
    "toObject": _to_object,
    "union": _union,
}
_FORMS: dict[str, Callable[[Node, Scope], Any]] = {
    "array": _array,
    "binary_expression": _binary,
    "boolean": lambda node, _: text(node) == "true",
    "call_expression": _call,
    "identifier": lambda node, scope: scope[text(node)],
    "lambda_expression": _lambda,
    "member_expression": _member,
    "number": lambda node, _: int(text(node)),
    "object": _object,
    "parenthesized_expression": lambda node, scope: evaluate(named(node)[0], scope),
    "string": _string,
    "ternary_expression": _ternary,
    "unary_expression": lambda node, scope: (
        not evaluate(named(node)[0], scope) if text(node).startswith("!") else -evaluate(named(node)[0], scope)
    ),
}
