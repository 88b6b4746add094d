"""How the shared breaker behaves from 1 to 1,000 instances: `python -m benchmarks.breaker_scale [--quick]`.

Prints a table, a row per outage and fleet. Table latencies are those measured against Azurite with
`azure-data-tables` (ten documents): query 4.65 / 7.75 / 12.3 ms, save 2.28 / 4.22 / 9.65 ms at p50 / p90 / p99; 0.1 %
of the operations fail.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from dataclasses import dataclass

from benchmarks.breaker_fleet import EPOCH, Answer, Fleet, Log, Provider, World
from routing.breaker_state import BreakerSettings
from routing.keeper import HealthSettings
from routing.types import Outcome

BEGINS = 12.0  # seconds of health before the outage
SIZES = (1, 10, 100, 1000)
OK, FAULT = Answer(Outcome.OK, 1.0), Answer(Outcome.FAULT, 0.2)
THROTTLED = Answer(Outcome.PARKED, 0.05, retry_after=15.0)


@dataclass(frozen=True, slots=True)
class Shape:
    """An outage: what the provider does from `BEGINS` on, for how long, and how long to watch."""

    name: str
    provider: Provider
    seconds: float
    table_away: float = 0.0  # seconds from BEGINS on in which the table fails
    targets: int = 1


def hard(now: float, instance: int, dice: random.Random) -> Answer:
    """Every call fails for a minute."""
    return FAULT if BEGINS <= now < BEGINS + 60 else OK


def half(now: float, instance: int, dice: random.Random) -> Answer:
    """Half of the calls fail for a minute."""
    return FAULT if BEGINS <= now < BEGINS + 60 and dice.random() < 0.5 else OK


def throttling(now: float, instance: int, dice: random.Random) -> Answer:
    """429 with `Retry-After: 15` for 40 seconds."""
    return THROTTLED if BEGINS <= now < BEGINS + 40 else OK


def flapping(now: float, instance: int, dice: random.Random) -> Answer:
    """Ten seconds down, ten up, and so on."""
    return FAULT if now >= BEGINS and int((now - BEGINS) / 10) % 2 == 0 else OK


def region(now: float, instance: int, dice: random.Random) -> Answer:
    """Every fifth instance cannot reach the provider for a minute."""
    return FAULT if BEGINS <= now < BEGINS + 60 and instance % 5 == 0 else OK


def noise(now: float, instance: int, dice: random.Random) -> Answer:
    """One call in a hundred fails, all the time: nothing should trip."""
    return FAULT if dice.random() < 0.01 else OK


SHAPES = (
    Shape("hard", hard, 115),
    Shape("hard, 20 targets", hard, 60, targets=20),
    Shape("half fails", half, 60),
    Shape("throttling", throttling, 40),
    Shape("flapping", flapping, 60),
    Shape("one region", region, 55),
    Shape("hard, no table 20 s", hard, 75, table_away=20),
    Shape("noise 1 %", noise, 25),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Seconds count from the outage's begin; None means never."""

    shape: str
    instances: int
    first: float | None
    last: float | None
    lost: int
    periods: int
    most_probes: int
    reads_rest: float
    writes_rest: float
    reads_peak: int
    writes_peak: int
    peak: int
    conflicts: int


def simulate(shape: Shape, instances: int, seed: int = 1) -> Row:
    """Runs one outage with one fleet."""

    def errors(now: float) -> float:
        return 1.0 if BEGINS <= now < BEGINS + shape.table_away else 0.001

    world = World(instances, shape.provider, shape.seconds, shape.targets, table_errors=errors, seed=seed)
    return summary(shape, instances, Fleet(world, BreakerSettings(), HealthSettings()).run())


def summary(shape: Shape, instances: int, log: Log) -> Row:
    """The log in numbers."""
    stops = [at - BEGINS for at in log.stopped.values() if at >= BEGINS]
    probes = probes_by_period(log)
    both = log.reads + log.writes
    return Row(
        shape=shape.name,
        instances=instances,
        first=min(stops, default=None),
        last=max(stops, default=None) if len(stops) == instances * shape.targets else None,
        lost=sum(outcome is not Outcome.OK for _, outcome in log.sent),
        periods=len(probes),
        most_probes=max(probes, default=0),
        reads_rest=at_rest(log.reads),
        writes_rest=at_rest(log.writes),
        reads_peak=peak(log.reads),
        writes_peak=peak(log.writes),
        peak=peak(both),
        conflicts=log.conflicts,
    )


def probes_by_period(log: Log) -> list[int]:
    """How many probes were sent after each opening of a target, before its verdict or the next one's."""
    targets = {target for _, document in log.history for target in document["targets"]}
    return [count for target in sorted(targets) for count in _probes_of(target, log)]


def _probes_of(target: str, log: Log) -> list[int]:
    states = [(at, document["targets"][target]) for at, document in log.history if target in document["targets"]]
    verdicts = [(at, state) for at, state in states if state["phase"] != "half_open"]
    sent = [at for at, whom in log.probes if whom == target]
    counts = []
    for (begin, state), end in zip(verdicts, [*(at for at, _ in verdicts[1:]), float("inf")], strict=False):
        due = state["open_until"] - EPOCH
        if state["phase"] == "open" and (found := [at for at in sent if max(begin, due - 1) <= at < end]):
            counts.append(len(found))
    return counts


def at_rest(counts: Counter[int]) -> float:
    """Operations per second in the healthy seconds, the first two apart."""
    tenths = range(20, int(BEGINS * 10))
    return sum(counts[tenth] for tenth in tenths) * 10 / len(tenths)


def peak(counts: Counter[int]) -> int:
    """Operations in the busiest second after the first two, which start all instances at once."""
    last = max(counts, default=0)
    return max((sum(counts[at + step] for step in range(10)) for at in range(20, last + 1)), default=0)


def line(row: Row) -> str:
    """The row in Markdown."""
    first, last = (f"{value:.2f}" if value is not None else "-" for value in (row.first, row.last))
    probes = f"{row.most_probes} ({row.periods})" if row.periods else "-"
    rest = f"{row.reads_rest:.0f} / {row.writes_rest:.0f}"
    busiest = f"{row.reads_peak} / {row.writes_peak} / {row.peak}"
    cells = (row.shape, row.instances, first, last, row.lost, probes, rest, busiest, row.conflicts)
    return f"| {' | '.join(map(str, cells))} |"


HEAD = (
    "| outage | instances | first stops, s | last stops, s | lost calls | most probes in a period (periods) "
    "| at rest, reads / writes per s | peak second, reads / writes / both | conflicts |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only fleets of up to 100 instances")
    parser.add_argument("--shape", help="only this outage")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.perf_counter()
    print(HEAD)
    for shape in SHAPES:
        for instances in SIZES[:3] if arguments.quick else SIZES:
            if arguments.shape in (None, shape.name):
                print(line(simulate(shape, instances, arguments.seed)), flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
