"""What a table that is silent or gone costs a request: `python -m benchmarks.store_away [--requests N]`.

Four processes of the real app, asked in turns so that a busy machine is as unfair to each: without a table, with one
that takes requests and never answers, with none where it should be, and with one that works for a quarter of the time
and then falls silent. All with the default settings. Needs Azurite.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import quantiles

from local.processes import free_port
from local.providers import serve
from tests.fleet import fleet, fleet_routes, proxied, silent_tables, table_environment, tables


async def measured(requests: int, folder: Path) -> dict[str, list[float]]:
    """The seconds that each request took, by what was wrong with the table."""
    async with AsyncExitStack() as stack:
        standin = await stack.enter_async_context(serve(name="one"))
        silent = await stack.enter_async_context(silent_tables())
        proxy = await stack.enter_async_context(proxied(await stack.enter_async_context(tables())))
        stores = {
            "no table": {},
            "silent": silent.environment,
            "gone": table_environment(free_port()),
            "falls silent": proxy.environment,
        }
        routes = fleet_routes(folder, [standin], breaker={}, health={})
        members = await stack.enter_async_context(fleet(list(stores.values()), routes))
        taken: dict[str, list[float]] = {store: [] for store in stores}
        for number in range(requests):
            if number == requests // 4:
                proxy.open.clear()
            for store, member in zip(stores, members, strict=True):
                began = time.perf_counter()
                answer = await member.ask()
                taken[store].append(time.perf_counter() - began)
                assert answer.status_code == 200, answer.text
        proxy.open.set()
    return taken


def line(store: str, seconds: list[float]) -> str:
    """A row in Markdown, in milliseconds."""
    cuts = quantiles(seconds, n=100)
    return f"| {store} | {cuts[49] * 1000:.1f} | {cuts[89] * 1000:.1f} | {cuts[98] * 1000:.1f} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        taken = asyncio.run(measured(arguments.requests, Path(folder)))
    print("| the table | p50, ms | p90, ms | p99, ms |\n|---|---:|---:|---:|")
    for store, seconds in taken.items():
        print(line(store, seconds))


if __name__ == "__main__":
    main()
