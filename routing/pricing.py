"""What tokens cost: a dated table of prices, and the sums made with it.

USD per million tokens is micro-USD per token, so that no price is ever converted. What is not known stays unknown.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from routing.types import Cost, Shares, Target, Usage

SCHEMA = 1  # the layout of the table that this module reads
UNIT = "USD per million tokens"
ROUTES_FILE = "routes file"  # the version of prices that the routes file states
_DATED = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_RATES = frozenset({"input", "output", "cached_input", "cache_write", "reasoning"})
_MODEL = _RATES | {"batch", "above", "aliases"}
_VENDOR = frozenset({"kinds", "hosts", "source", "checked", "note", "models"})


class PriceTableError(ValueError):
    """The table cannot be used; says every reason, each with its place."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What one model costs: micro-USD per token, which is USD per million. None: priced as input, or as output."""

    input: float
    output: float
    cached_input: float | None = None  # read from the provider's cache
    cache_write: float | None = None  # written to it
    reasoning: float | None = None
    above: tuple[tuple[int, Rates], ...] = ()  # a request with more input tokens than this is priced so, all of it
    batch: Rates | None = None
    version: str = ""  # of the table that says so

    def of(self, input_tokens: int) -> Rates:
        """The rates for a request of this many input tokens, cached ones included."""
        if not self.above:
            return self
        return next((rates for tokens, rates in reversed(self.above) if input_tokens > tokens), self)


@dataclass(frozen=True, slots=True)
class Vendor:
    """One seller: who it is to the routes file (`kinds` of provider, at these `hosts`), and its models by name."""

    kinds: tuple[str, ...]
    hosts: tuple[str, ...]
    source: str
    checked: str
    models: Mapping[str, Rates]
    names: Mapping[str, str] = field(default_factory=dict)  # lower-case name or alias -> name


@dataclass(frozen=True, slots=True)
class Prices:
    """The table. `version` is its date, and names it in every cost."""

    version: str
    vendors: Mapping[str, Vendor]

    def vendor(self, kind: str, host: str = "") -> str | None:
        """Who is paid for a provider of this kind at this host.

        At a host nobody in the table names, a gateway or a proxy, a model has the price of the vendor the kind is
        named for: another vendor's models are not in its list, and stay unknown.
        """
        for name, vendor in self.vendors.items():
            if kind in vendor.kinds and host.lower() in vendor.hosts:
                return name
        return kind if kind in self.vendors else None

    def rates(self, vendor: str | None, model: str) -> Rates | None:
        """By exact name or alias, else without `models/` in front or a date behind (`gpt-5-mini-2025-08-07`)."""
        sold = self.vendors.get(vendor or "")
        if sold is None:
            return None
        wanted = model.lower().removeprefix("models/")
        name = sold.names.get(wanted) or sold.names.get(_DATED.sub("", wanted))
        return sold.models[name] if name else None


def price_of(target: Target, table: Prices, vendor: str | None, served: str | None = None) -> Rates | None:
    """The target's rates: those of the routes file, else the table's; None when nobody knows.

    `served` is the model that the reply names, and decides where the target's own name says nothing or less. A
    deployment's name on Azure is free to choose, so there a served model that is not in the table stays unknown.
    """
    if price := target.price:
        return Rates(
            price.input, price.output, price.cached_input, price.cache_write, price.reasoning, version=ROUTES_FILE
        )
    if served and (rates := table.rates(vendor, served)):
        return rates
    if served and vendor == "azure_openai":
        return None
    return table.rates(vendor, target.model)


def cost(usage: Usage, rates: Rates | None, version: str) -> Cost:
    """What was used, in whole micro-USD, half rounded up once at the end.

    `version` is the table's, and named when the price is unknown; known rates name their own.
    """
    if rates is None:
        return Cost(None, version)
    now = rates.of(usage.input)
    written = min(usage.cache_write, usage.input)
    cached = min(usage.cached, usage.input - written)
    reasoned = min(usage.reasoning, usage.output)
    total = (usage.input - cached - written) * _exactly(now.input) + (usage.output - reasoned) * _exactly(now.output)
    if cached or written or reasoned:
        total += cached * _exactly(_or(now.cached_input, now.input))
        total += written * _exactly(_or(now.cache_write, now.input))
        total += reasoned * _exactly(_or(now.reasoning, now.output))
    return Cost(int(total.quantize(Decimal(1), ROUND_HALF_UP)), rates.version)


def expected(rates: Rates, input_tokens: int, output_tokens: int, shares: Shares | None = None) -> float:
    """Micro-USD before the call, by the `shares` of tokens that are usually cached or reasoned; None: of none."""
    now = rates.of(input_tokens) if rates.above else rates
    if shares is None:
        return input_tokens * now.input + output_tokens * now.output
    sent = now.input + shares.cached * (_or(now.cached_input, now.input) - now.input)
    written = now.output + shares.reasoning * (_or(now.reasoning, now.output) - now.output)
    return input_tokens * sent + output_tokens * written


def worst_rates(rates: Rates, input_tokens: int) -> tuple[float, float]:
    """Micro-USD for a token of input, written to the cache and read from none, and for one of output, or of thought."""
    now = rates.of(input_tokens) if rates.above else rates
    return max(now.input, now.cache_write or 0.0), max(now.output, now.reasoning or 0.0)


@cache
def bundled() -> Prices:
    """The table that ships with the router, read once and not before it is needed. Raises PriceTableError."""
    return parse(resources.files("routing").joinpath("data/prices.json").read_text(encoding="utf-8"))


def parse(text: str) -> Prices:
    """A table from its JSON. Raises PriceTableError, which lists all that is wrong."""
    try:
        table = json.loads(text)
    except ValueError as error:
        raise PriceTableError(f"not JSON: {error}") from None
    if problems := list(_problems(table)):
        raise PriceTableError("\n".join(problems))
    version = table["version"]
    return Prices(version, {name: _vendor(vendor, version) for name, vendor in table["vendors"].items()})


def _or(rate: float | None, otherwise: float) -> float:
    return otherwise if rate is None else rate


@lru_cache(maxsize=1_024)
def _exactly(rate: float) -> Decimal:
    """A float's shortest decimal is the price as it was written."""
    return Decimal(repr(rate))


def _vendor(fields: Mapping[str, Any], version: str) -> Vendor:
    models: Mapping[str, Any] = fields["models"]
    return Vendor(
        kinds=tuple(fields["kinds"]),
        hosts=tuple(fields.get("hosts", ())),
        source=fields["source"],
        checked=fields["checked"],
        models={name: _rates(model, version) for name, model in models.items()},
        names={called.lower(): name for name, model in models.items() for called in (name, *model.get("aliases", ()))},
    )


def _rates(fields: Mapping[str, Any], version: str) -> Rates:
    return Rates(
        **{name: float(fields[name]) for name in _RATES & fields.keys()},
        above=tuple((tier["tokens"], _rates(tier, version)) for tier in fields.get("above", ())),
        batch=_rates(fields["batch"], version) if "batch" in fields else None,
        version=version,
    )


def _problems(table: Any) -> Iterator[str]:
    if not isinstance(table, dict):
        yield "must be an object"
        return
    if table.get("schema") != SCHEMA:
        yield f"schema: must be {SCHEMA}, not {table.get('schema')!r}"
    if table.get("unit") != UNIT:
        yield f"unit: must be {UNIT!r}, not {table.get('unit')!r}"
    if not _is_day(table.get("version")):
        yield f"version: must be a date such as 2026-01-31, not {table.get('version')!r}"
    vendors = table.get("vendors")
    if not isinstance(vendors, dict) or not vendors:
        yield "vendors: must be an object with at least one vendor"
        return
    for name, vendor in vendors.items():
        yield from _vendor_problems(f"vendors.{name}", vendor)


def _vendor_problems(path: str, vendor: Any) -> Iterator[str]:
    if not isinstance(vendor, dict):
        yield f"{path}: must be an object"
        return
    yield from (f"{path}.{name}: unknown" for name in sorted(vendor.keys() - _VENDOR))
    if not _are_words(vendor.get("kinds")) or not vendor["kinds"]:
        yield f"{path}.kinds: must list the kinds of provider it is"
    if not _are_words(vendor.get("hosts", [])):
        yield f"{path}.hosts: must list host names"
    if not str(vendor.get("source", "")).startswith("https://"):
        yield f"{path}.source: must be the https address of the price list"
    if not _is_day(vendor.get("checked")):
        yield f"{path}.checked: must be a date such as 2026-01-31, not {vendor.get('checked')!r}"
    models = vendor.get("models")
    if not isinstance(models, dict) or not models:
        yield f"{path}.models: must be an object with at least one model"
        return
    for name, model in models.items():
        yield from _model_problems(f"{path}.models.{name}", model)
    yield from _twice(path, models)


def _model_problems(path: str, model: Any) -> Iterator[str]:
    yield from _rate_problems(path, model, _MODEL)
    if not isinstance(model, dict):
        return
    if not _are_words(model.get("aliases", [])):
        yield f"{path}.aliases: must list names"
    if "batch" in model:
        yield from _rate_problems(f"{path}.batch", model["batch"], _RATES)
    tiers = model.get("above", [])
    if not isinstance(tiers, list):
        yield f"{path}.above: must be a list"
        return
    last = 0
    for number, tier in enumerate(tiers):
        yield from _rate_problems(f"{path}.above[{number}]", tier, _RATES | {"tokens"})
        tokens = tier.get("tokens") if isinstance(tier, dict) else None
        if type(tokens) is not int or tokens <= last:
            yield f"{path}.above[{number}].tokens: must be a whole number above {last}, not {tokens!r}"
        else:
            last = tokens


def _rate_problems(path: str, rates: Any, allowed: frozenset[str]) -> Iterator[str]:
    if not isinstance(rates, dict):
        yield f"{path}: must be an object"
        return
    yield from (f"{path}.{name}: unknown" for name in sorted(rates.keys() - allowed))
    yield from (f"{path}.{name}: missing" for name in ("input", "output") if name not in rates)
    for name in sorted(rates.keys() & _RATES):
        if not _is_rate(rates[name]):
            yield f"{path}.{name}: must be a number of at least 0, not {rates[name]!r}"


def _twice(path: str, models: Mapping[str, Any]) -> Iterator[str]:
    """A name or alias that two models claim."""
    seen: dict[str, str] = {}
    for name, model in models.items():
        aliases = model.get("aliases", []) if isinstance(model, dict) else []
        for called in (name, *(aliases if _are_words(aliases) else ())):
            if (other := seen.setdefault(called.lower(), name)) != name:
                yield f"{path}.models: {called} is both {other} and {name}"


def _is_rate(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _is_day(value: Any) -> bool:
    return isinstance(value, str) and _DAY.fullmatch(value) is not None


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and word for word in value)
