"""`python -m tools.prices check FILE`: what a downloaded price list says otherwise than the table.

FILE is litellm's `model_prices_and_context_window.json` or the answer of OpenRouter's `/api/v1/models`. Prints one line
for each figure that differs. Exits 0 when all that both name agrees, 1 when something changed, 2 when a file cannot be
read. Nothing is downloaded and nothing is changed: what the vendor's own page says decides.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing.pricing import Prices, PriceTableError, Rates, bundled, parse

PLACES = 6  # of USD per million tokens that count; more is noise of floats
Figures = Mapping[str, float]  # "input", "batch output", "output above 200000" -> USD per million tokens

# Our vendor -> (litellm's provider, the prefixes that litellm writes before a model's name).
LITELLM = {
    "openai": ("openai", ("",)),
    "azure_openai": ("azure", ("azure/",)),
    "anthropic": ("anthropic", ("",)),
    "gemini": ("gemini", ("gemini/",)),
    "mistral": ("mistral", ("mistral/",)),
    "deepseek": ("deepseek", ("", "deepseek/")),
    "groq": ("groq", ("groq/",)),
    "together": ("together_ai", ("together_ai/",)),
    "fireworks": ("fireworks_ai", ("fireworks_ai/",)),
}
LITELLM_FIGURES = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "reasoning": "output_cost_per_reasoning_token",
}
# OpenRouter names authors, not sellers: only vendors that sell their own models can be compared.
OPENROUTER = {
    "openai": "openai/",
    "anthropic": "anthropic/",
    "gemini": "google/",
    "mistral": "mistralai/",
    "deepseek": "deepseek/",
}
OPENROUTER_FIGURES = {
    "input": "prompt",
    "output": "completion",
    "cached_input": "input_cache_read",
    "cache_write": "input_cache_write",
    "reasoning": "internal_reasoning",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One figure, in USD per million tokens; `None` where that side does not name it."""

    vendor: str
    model: str
    figure: str
    ours: float | None
    theirs: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`compared` and `missing` are models of the table, as vendor and name."""

    compared: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]
    changes: tuple[Change, ...]


def compare(table: Prices, theirs: Mapping[tuple[str, str], Figures]) -> Comparison:
    """What the other list says otherwise. A figure that only the table has is no change: lists leave much out."""
    ours = {(seller, name): rates for seller, vendor in table.vendors.items() for name, rates in vendor.models.items()}
    compared = tuple(key for key in ours if _plain(key) in theirs)
    changes = (change for key in compared for change in _changes(key, _figures(ours[key]), theirs[_plain(key)]))
    return Comparison(compared, tuple(key for key in ours if _plain(key) not in theirs), tuple(changes))


def read_list(text: str) -> dict[tuple[str, str], Figures]:
    """Another price list's figures by vendor and model. Raises ValueError when it is in neither format."""
    fields = json.loads(text)
    if isinstance(fields, dict) and isinstance(fields.get("data"), list):
        return dict(_from_openrouter(fields["data"]))
    if isinstance(fields, dict) and any(_is_litellm(entry) for entry in fields.values()):
        return dict(_from_litellm(fields))
    raise ValueError("neither litellm's price list nor OpenRouter's list of models")


def report(comparison: Comparison, table: Prices) -> Iterator[str]:
    """The lines that are printed."""
    for change in comparison.changes:
        told = f"{_usd(change.ours)} -> {_usd(change.theirs)}"
        yield f"{f'{change.vendor} {change.model}':<60} {change.figure:<28} {told}"
    for vendor, model in comparison.missing:
        yield f"{vendor} {model}: not in the list"
    touched = len({(change.vendor, change.model) for change in comparison.changes})
    yield (
        f"prices of {table.version}: {len(comparison.compared)} models compared, {touched} changed, "
        f"{len(comparison.missing)} not in the list; USD per million tokens"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.prices", description="Keeps the table of prices honest.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="compare the table with a downloaded price list")
    check.add_argument("file", type=Path, help="litellm's price list or OpenRouter's list of models, as JSON")
    check.add_argument("--table", type=Path, help="another table than the one that ships with the router")
    given = parser.parse_args(arguments)
    try:
        table = parse(given.table.read_text(encoding="utf-8")) if given.table else bundled()
        comparison = compare(table, read_list(given.file.read_text(encoding="utf-8")))
    except PriceTableError as error:
        print(f"the table of prices: {error}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"{given.file}: {error}", file=sys.stderr)
        return 2
    print("\n".join(report(comparison, table)))
    return 1 if comparison.changes else 0


def _changes(key: tuple[str, str], ours: Figures, theirs: Figures) -> Iterator[Change]:
    for figure in sorted(theirs):
        mine = ours.get(figure, _implied(figure, ours))
        if mine is None or round(mine - theirs[figure], PLACES):
            yield Change(*key, figure, ours.get(figure), theirs[figure])


def _implied(figure: str, ours: Figures) -> float | None:
    """What a figure that the table does not name apart is priced as."""
    kind, _, tier = figure.partition(" above ")
    return ours.get(f"output above {tier}" if tier else "output") if kind == "reasoning" else None


def _figures(rates: Rates) -> Figures:
    figures = {**_named(rates, "", "")}
    if rates.batch:
        figures |= _named(rates.batch, "batch ", "")
    for tokens, tier in rates.above:
        figures |= _named(tier, "", f" above {tokens}")
    return figures


def _named(rates: Rates, before: str, behind: str) -> dict[str, float]:
    values = {name: getattr(rates, name) for name in LITELLM_FIGURES}
    return {f"{before}{name}{behind}": value for name, value in values.items() if value is not None}


def _plain(key: tuple[str, str]) -> tuple[str, str]:
    """Lists spell versions with dots or dashes: claude-sonnet-4.5, claude-sonnet-4-5."""
    vendor, model = key
    return vendor, model.lower().replace(".", "-")


def _is_litellm(entry: Any) -> bool:
    return isinstance(entry, dict) and "litellm_provider" in entry


def _from_litellm(fields: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Figures]]:
    for vendor, (provider, prefixes) in LITELLM.items():
        for prefix in reversed(prefixes):
            for name, entry in fields.items():
                if _is_litellm(entry) and entry["litellm_provider"] == provider and name.startswith(prefix):
                    yield _plain((vendor, name.removeprefix(prefix))), dict(_litellm_figures(entry))


def _litellm_figures(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for ours, theirs in LITELLM_FIGURES.items():
        yield from _per_million(ours, entry.get(theirs))
        yield from _per_million(f"batch {ours}", entry.get(f"{theirs}_batches"))
        for name, value in entry.items():
            size = name.removeprefix(f"{theirs}_above_").removesuffix("k_tokens")
            if name == f"{theirs}_above_{size}k_tokens" and size.isdecimal():
                yield from _per_million(f"{ours} above {int(size) * 1000}", value)


def _from_openrouter(models: list[Any]) -> Iterator[tuple[tuple[str, str], Figures]]:
    for model in models:
        if not isinstance(model, dict) or not isinstance(pricing := model.get("pricing"), dict):
            continue
        name = str(model.get("id", ""))
        for vendor, prefix in OPENROUTER.items():
            if name.startswith(prefix):
                figures = {
                    figure: usd
                    for ours, theirs in OPENROUTER_FIGURES.items()
                    for figure, usd in _per_million(ours, pricing.get(theirs))
                }
                yield _plain((vendor, name.removeprefix(prefix))), figures


def _per_million(figure: str, usd_per_token: Any) -> Iterator[tuple[str, float]]:
    """Nothing for what is not said: no figure, zero beside a price, or OpenRouter's -1 for prices that vary."""
    try:
        usd = float(usd_per_token) * 1e6
    except (TypeError, ValueError):
        return
    if usd > 0:
        yield figure, round(usd, PLACES)


def _usd(value: float | None) -> str:
    return "not named" if value is None else f"{value:.{PLACES}f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
