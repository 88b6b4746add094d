"""How long choosing takes: `python -m benchmarks.planning [--replay [DECISIONS]]`.

Detects the task and makes the plan for requests of several lengths, with the sample routes file, and prints p50 and p99
in microseconds of processor time, whatever else the machine does. There is no I/O. `--replay` writes 100,000 decisions
to a temporary file instead, replays them with tools.replay under the same routes file, and prints the seconds and the
memory that took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pydantic_core import to_json

from routing import config, pricing
from routing.config import Config
from routing.custom import Custom
from routing.planner import Lots, Planner
from routing.types import Caller, Cost, Decision, Refused, Speed, Task, Usage
from routing.wire import ChatRequest
from tools import replay

ROUTES = Path(__file__).resolve().parent.parent / "routes.toml"
LENGTHS = (60, 600, 6_000, 60_000)  # characters
ROUNDS = 2_000
TEXT = "Plan a small conference in Lisbon for eighty people, with dates, venues and a budget for each of the days. "


class Seen:
    """Every target was seen, and none is ill."""

    def refusal(self, target: str) -> Refused | None:
        return None

    def speed(self, target: str) -> Speed | None:
        return Speed(0.4, 70.0)


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p99 in microseconds."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2] * 1e6, ordered[len(ordered) * 99 // 100] * 1e6


def request(characters: int, number: int) -> ChatRequest:
    text = (f"{number}: " + TEXT * (characters // len(TEXT) + 1))[:characters]
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    return ChatRequest.parse(json.dumps(body).encode())


async def timed(planner: Planner, loaded: Config, characters: int, again: bool) -> tuple[list[float], list[float]]:
    """Processor seconds of both; `again` asks the same each time, which finds the plan that was made."""
    detecting, planning = [], []
    route = loaded.route("auto", Caller("benchmark"))
    for number in range(ROUNDS if characters <= 6_000 else ROUNDS // 10):
        asked = request(characters, 0 if again else number)
        start = time.process_time()
        task = planner.detect(asked, route)
        middle = time.process_time()
        await planner.plan(planner.features(asked), route, task, Lots(random.random(), random.random()))
        detecting.append(middle - start)
        planning.append(time.process_time() - middle)
    return detecting, planning


async def measure() -> None:
    loaded = config.load(ROUTES, {})
    planner = Planner(loaded, Seen(), pricing.bundled, Custom())
    planner.detect(request(600, 0), loaded.route("auto"))  # the weights are loaded
    print(
        f"{'characters':>10} {'requests':>9}  {'detect p50':>10} {'p99':>7}  {'plan p50':>8} {'p99':>7}   microseconds"
    )
    for characters in LENGTHS:
        for again in (False, True):
            detecting, planning = await timed(planner, loaded, characters, again)
            figures = (*percentiles(detecting), *percentiles(planning))
            told = "{:>10.0f} {:>7.0f}  {:>8.0f} {:>7.0f}".format(*figures)
            print(f"{characters:>10} {'the same' if again else 'new':>9}  {told}")


async def recorded(count: int, kinds: Sequence[Task]) -> list[bytes]:
    """Decisions as the router keeps them, hardly two with the same features."""
    loaded = config.load(ROUTES, {})
    planner = Planner(loaded, Seen(), pricing.bundled, Custom())
    dice, lines = random.Random(7), []
    for number in range(count):
        asked, model = request(dice.randint(50, 6_000), number), dice.choice(["auto", "cheap", "fast"])
        lots = Lots(dice.random(), dice.random())
        route = loaded.route(model)
        plan, facts = await planner.plan(planner.features(asked), route, dice.choice(kinds), lots)
        target = loaded.targets[plan.choices[0].target]
        usage = Usage(facts.input_tokens, dice.randint(1, 900))
        cost = pricing.cost(usage, planner.rates(target), "x")
        made = Decision("ID", 1.7e9, "app", model, plan, facts, (), target.name, usage, Cost(cost.micro_usd, "x"))
        lines.append(to_json(asdict(replace(made, seconds=1.0))) + b"\n")
    return lines


def written(path: Path, lines: Sequence[bytes], count: int) -> None:
    def numbered() -> Iterator[bytes]:
        for number in range(count):
            yield lines[number % len(lines)].replace(b'"ID"', f'"dec_{number}"'.encode())

    with path.open("wb") as file:
        file.writelines(numbered())


def replayed(count: int) -> None:
    kinds = [Task("general", 0.9), Task("planning", 0.9), Task("code_generation", 0.9), Task("translation", 0.9)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decisions.jsonl"
        written(path, asyncio.run(recorded(5_000, kinds)), count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, began = time.perf_counter(), time.process_time()
        code = replay.main(["--decisions", str(path), "--routes", str(ROUTES), "--max-cost-increase", "5%"])
        seconds, own = time.perf_counter() - start, time.process_time() - began
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"{count} decisions, {path.stat().st_size / 1e6:.0f} MB: {seconds:.1f} s, of one core {own:.1f} s, "
            f"{grown:.1f} MB more, exit {code}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__.partition(":")[0])
    parser.add_argument(
        "--replay", nargs="?", type=int, const=100_000, metavar="DECISIONS", help="time a replay instead"
    )
    options = parser.parse_args()
    if options.replay:
        replayed(options.replay)
    else:
        asyncio.run(measure())


if __name__ == "__main__":
    main()
