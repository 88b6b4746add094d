"""What would another configuration have done? Plans recorded decisions anew and compares cost, time, mix and fallbacks.

    python -m tools.replay --decisions FILE --routes NEW.toml [--prices NEW.json] [--json OUT] [--max-cost-increase 5%]

FILE is what `GET /v1/router/decisions?format=jsonl` answers. The plans are made by the router's own code; no provider
is asked. Exits 0; 1 when the cost rises more than allowed, or cannot be told; 2 when a file is refused or has bad
lines. docs/replay.md says what is assumed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

from routing import config, custom, pricing
from routing.config import Config, Route
from routing.custom import Custom
from routing.errors import CallerError, Misconfigured
from routing.planner import Lots, Planner
from routing.pricing import Prices, PriceTableError
from routing.strategies import seconds_for
from routing.types import Caller, Choice, Plan, Refused, Shares, Speed, Target, Task, Usage
from tools.replay_read import BadLine, Recorded, decisions
from tools.replay_sums import Outcome, Sums, table

NAMED = 20  # bad lines that are named; the others are counted
_SHARE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*")


class Unusable(Exception):
    """A file that cannot be used; says why, a reason a line."""


class _Addresses(dict[str, str]):
    """Stands in for app settings that only the deployed app has: nobody is asked at these addresses."""

    def get(self, name: str, default: Any = None) -> Any:
        return os.environ.get(name) or "http://not-asked"


class Then:
    """What was known when the decision at hand was made; a speed not known then is the last seen."""

    def __init__(self) -> None:
        self._refused: Mapping[str, Refused] = {}
        self._speeds: dict[str, Speed] = {}
        self._shares: Mapping[str, Shares] = {}

    def was(self, recorded: Recorded) -> None:
        """Turns to another decision."""
        self._refused = recorded.refused()
        self._speeds.update(recorded.facts.speed)
        self._shares = recorded.facts.shares

    def refusal(self, target: str) -> Refused | None:
        return self._refused.get(target)

    def speed(self, target: str) -> Speed | None:
        return self._speeds.get(target)

    def shares(self, target: str) -> Shares | None:
        return self._shares.get(target)

    def learn(self, target: str, usage: Usage) -> None:
        """Nothing: what was known then is in the decision."""


class Replay:
    """Runs recorded decisions through a configuration, one after the other."""

    def __init__(self, loaded: Config, planner: Planner, then: Then) -> None:
        self._config, self._planner, self._then = loaded, planner, then
        self.sums = Sums()

    async def take(self, recorded: Recorded) -> None:
        """Adds one decision to the sums."""
        if recorded.from_cache:
            self.sums.from_cache += 1
            return
        self._then.was(recorded)
        self.sums.add(self._before(recorded), await self._after(recorded))

    def _before(self, recorded: Recorded) -> Outcome:
        if recorded.target is None:
            return Outcome(None)
        first = recorded.plan.choices[0].target if recorded.plan.choices else None
        cost = recorded.cost.micro_usd if recorded.cost else None
        return Outcome(recorded.target, recorded.target != first, cost, self._seconds(recorded.target, recorded))

    async def _after(self, recorded: Recorded) -> Outcome:
        caller = self._config.callers.get(recorded.caller) or _unknown(recorded.caller)
        try:
            route = self._config.route(recorded.model, caller)
            task = _task(recorded.plan.task, route)
            plan, _ = await self._planner.plan(recorded.features, route, task, _lots(recorded))
        except CallerError as error:
            return Outcome(None, refusal=error.code)
        answering = _answering(plan, recorded)
        if answering is None:
            return Outcome(None)
        fell_back = answering.target != plan.choices[0].target
        seconds = self._seconds(answering.target, recorded)
        return Outcome(answering.target, fell_back, self._cost(answering, recorded), seconds)

    def _seconds(self, target: str, recorded: Recorded) -> float | None:
        speed = self._then.speed(target)
        return seconds_for(recorded.usage.output, speed) if speed and recorded.usage else None

    def _cost(self, choice: Choice, recorded: Recorded) -> int | None:
        """What the tokens that were used would cost there, cut off where the request's ceiling would have."""
        used, target = recorded.used, self._config.targets[choice.target]
        if used is None:
            return None
        if choice.output_limit is not None:
            used = replace(used, output=min(used.output, choice.output_limit * recorded.facts.answers))
        rates = self._planner.rates(target)
        if rates is None and recorded.target == target.name and self._names_hide_models(target):
            return recorded.cost.micro_usd if recorded.cost else None
        return pricing.cost(used, rates, self._planner.prices.version).micro_usd

    def _names_hide_models(self, target: Target) -> bool:
        """On Azure only the reply tells which model a deployment is: the recorded cost is all there is."""
        return self._config.file.providers[target.provider].type == "azure_openai"


@lru_cache(maxsize=1_024)
def _unknown(name: str) -> Caller:
    """A caller that the new routes file does not have any more."""
    return Caller(name)


def _task(recorded: Task, route: Route) -> Task:
    """As the route would have taken it: it may want more confidence, unless it asks about what is uncertain."""
    settings = route.settings
    if recorded.confidence >= settings.min_task_confidence or settings.detector:
        return recorded
    return replace(recorded, kind="general")


def _lots(recorded: Recorded) -> Lots:
    """The same chance as then; whom to try anew is drawn from the id, so that every replay draws alike."""
    return Lots(draw=recorded.facts.draw, explore=crc32(recorded.id.encode()) / 2**32)


def _answering(plan: Plan, recorded: Recorded) -> Choice | None:
    """The first choice that did not fail for this very request; who was not asked then would have answered."""
    return next((choice for choice in plan.choices if choice.target not in recorded.failed), None)


def build(routes: Path, prices: Path | None) -> Replay:
    """A replay of the configuration. Raises Unusable."""
    try:
        loaded = config.load(routes, _Addresses())
        strategies, errors = custom.load(loaded)
        table_of_prices = _prices(prices)
    except Misconfigured as error:
        raise Unusable("\n".join(error.errors)) from None
    except (OSError, UnicodeDecodeError, PriceTableError) as error:
        raise Unusable(f"{prices}: {error}") from None
    if errors:
        raise Unusable("\n".join(errors))
    then = Then()
    planner = Planner(loaded, then, lambda: table_of_prices, Custom(strategies), then, 0)  # 0: hardly two are alike
    return Replay(loaded, planner, then)


def _prices(path: Path | None) -> Prices:
    return pricing.parse(path.read_text(encoding="utf-8")) if path else pricing.bundled()


async def run(file: Path, replay: Replay) -> Sums:
    """All decisions of the file; names bad lines on standard error. Raises Unusable."""
    try:
        for line in decisions(file):
            if isinstance(line, BadLine):
                _name(line, file, replay.sums)
            else:
                await replay.take(line)
    except OSError as error:
        raise Unusable(f"{file}: {error.strerror}") from None
    if not replay.sums.decisions:
        raise Unusable(f"{file}: no decision to compare")
    return replay.sums


def _name(line: BadLine, file: Path, sums: Sums) -> None:
    sums.bad_lines += 1
    if sums.bad_lines <= NAMED:
        print(f"{file}:{line.number}: {line.reason}", file=sys.stderr)
    elif sums.bad_lines == NAMED + 1:
        print(f"{file}: more bad lines, counted below", file=sys.stderr)


def too_much(sums: Sums, allowed: float | None) -> Iterator[str]:
    """Why the new configuration is not to be let through."""
    if allowed is None:
        return
    increase = sums.cost_increase
    if increase is None:
        yield "no decision has a known cost on both sides"
    elif increase > allowed:
        yield f"the cost rises by {increase:.2%}, more than {allowed:.2%}"
    if sums.cost_lost:
        yield f"the cost of {sums.cost_lost} decisions was known and is unknown now"
    if sums.lost:
        yield f"{sums.lost} requests were answered and would be by nobody now"


def share(text: str) -> float:
    """`5%` or `0.05`. Raises argparse.ArgumentTypeError."""
    found = _SHARE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no share such as 5% or 0.05")
    return float(found[1]) / (100 if found[2] else 1)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        sums = asyncio.run(run(options.decisions, build(options.routes, options.prices)))
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2
    told = sums.told()
    problems = list(too_much(sums, options.max_cost_increase))
    print(table(told), *problems, sep="\n")
    try:
        if options.json:
            options.json.write_text(json.dumps({**told, "problems": problems}, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        print(f"{options.json}: {error.strerror}", file=sys.stderr)
        return 2
    if sums.bad_lines:
        return 2
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.replay", description=__doc__.partition("\n")[0])
    parser.add_argument("--decisions", type=Path, required=True, help="recorded decisions, a JSON object a line")
    parser.add_argument("--routes", type=Path, required=True, help="the new routes file")
    parser.add_argument("--prices", type=Path, help="a price table; left out: the one that ships with the router")
    parser.add_argument("--json", type=Path, help="write the report there, too")
    parser.add_argument("--max-cost-increase", type=share, help="5%% or 0.05; exit 1 when the cost rises by more")
    return parser


if __name__ == "__main__":
    sys.exit(main())
