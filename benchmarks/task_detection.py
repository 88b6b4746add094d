"""How long task detection takes: `python -m benchmarks.task_detection` prints milliseconds of one core's time."""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from pathlib import Path

from routing.task_model import TaskInput, load
from routing.tasks import detect

REQUESTS = Path(__file__).parents[1] / "tools" / "task_data" / "requests.jsonl"
SIZE = 6_000  # characters


def read_requests() -> list[TaskInput]:
    """The kept requests as the router sees them."""
    lines = [json.loads(line) for line in REQUESTS.read_text("utf-8").splitlines()]
    return [TaskInput(tuple((role, text) for role, text in line["turns"]), line["system"]) for line in lines]


def grow(requests: list[TaskInput], count: int, size: int, seed: int = 1) -> list[TaskInput]:
    """Requests whose last turn is an instruction with pasted material, `size` characters in all."""
    dice = random.Random(seed)
    grown = []
    for _ in range(count):
        first = dice.choice(requests)
        text = first.turns[-1][1][:300] + "\n\n"
        while len(text) < size:
            text += dice.choice(requests).turns[-1][1] + "\n\n"
        grown.append(TaskInput((("user", text[:size]),), first.system))
    return grown


def measure(requests: list[TaskInput], rounds: int) -> list[float]:
    """Milliseconds of this thread's processor time per request, sorted; the best of `rounds` for each."""
    gc.collect()
    spent = []
    for parts in requests:
        best = float("inf")
        for _ in range(rounds):
            started = time.thread_time()
            detect(parts)
            best = min(best, time.thread_time() - started)
        spent.append(best * 1e3)
    return sorted(spent)


def show(name: str, spent: list[float]) -> None:
    p50, p99 = spent[len(spent) // 2], spent[int(len(spent) * 0.99)]
    print(f"{name:28} p50 {p50:6.3f} ms   p99 {p99:6.3f} ms   max {spent[-1]:6.3f} ms")


def main() -> None:
    """Loading, then the kept requests as they are, then long ones."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3, help="times each request is measured, the best counts")
    rounds = options.parse_args().rounds
    started = time.thread_time()
    load()
    print(f"{'loading the weights':28} {(time.thread_time() - started) * 1e3:10.1f} ms")
    requests = read_requests()
    show("kept requests", measure(requests, rounds))
    show(f"{SIZE:,} characters", measure(grow(requests, 500, SIZE), rounds))
    show("1,000,000 characters", measure(grow(requests, 5, 1_000_000), rounds))


if __name__ == "__main__":
    main()
