"""A tour of the router in the terminal, under a minute: what `make demo` shows.

Starts two instances that share their state through Azurite, and three stand-in providers; asks, kills a provider in
the middle of an answer, and watches both instances get over it. Exits 1 when something it shows did not happen.

    python -m local.demo
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from local import azurite, processes
from local.run import DEV_KEY, ROOT

ROUTES = ROOT / "local" / "routes.demo.toml"
CHAT = "/v1/chat/completions"
VICTIM = "large"  # the target whose provider is killed
PROVIDERS = ("openai", "azure", "ollama")
PATIENCE = 30.0  # seconds for anything to happen
MOST_FAULTS = 6  # requests that may find the dead provider before its breaker opens
PROMPTS = {
    "code_generation": "Write a Python function that merges two sorted lists.",
    "summarization": "Summarize the following article in three sentences: the council met on Monday.",
    "translation": "Translate into French: good morning, how are you?",
}


class DemoFailed(Exception):
    """Something that the tour shows did not happen."""


def say(text: str = "") -> None:
    print(text, flush=True)


def check(true: object, what: str) -> None:
    """Says what happened. Raises DemoFailed when it did not."""
    if not true:
        raise DemoFailed(what)
    say(f"  ✓ {what}")


async def until(true: Callable[[], Awaitable[bool]], what: str) -> float:
    """Waits until `true()`; returns the seconds that took. Raises DemoFailed."""
    began = time.monotonic()
    while not await true():
        if time.monotonic() - began > PATIENCE:
            raise DemoFailed(f"not within {PATIENCE:g} s: {what}")
        await asyncio.sleep(0.05)
    return time.monotonic() - began


@dataclass
class Provider:
    """A stand-in provider in a process of its own, so that it can be killed and come back on the same port."""

    kind: str
    port: int = field(default_factory=processes.free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        pace = ["--tokens-per-second", "60"]
        self.process = processes.spawn(
            [sys.executable, "-m", "local.providers", f"--{self.kind}", str(self.port), *pace]
        )

    async def ready(self) -> None:
        assert self.process is not None  # `start` comes first
        await asyncio.to_thread(processes.wait_for_port, self.port, self.process)

    def kill(self) -> None:
        """Ends it as a crash would."""
        assert self.process is not None  # `start` comes first
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            processes.stop(self.process)


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of the router and a client for it."""

    name: str
    client: httpx.AsyncClient

    async def ask(self, prompt: str, model: str = "auto", **fields: Any) -> httpx.Response:
        return await self.client.post(CHAT, json=body(prompt, model, **fields))

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        return answer.raise_for_status().json()

    async def breaker(self, target: str) -> str:
        """The state of the target's breaker, as this instance sees it."""
        targets = (await self.get("/v1/router/status"))["targets"]
        return str(next(each["state"] for each in targets if each["target"] == target))


def body(prompt: str, model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}


@dataclass(frozen=True, slots=True)
class World:
    """All that runs: two instances and the provider that will be killed."""

    one: Instance
    two: Instance
    victim: Provider

    @property
    def both(self) -> tuple[Instance, Instance]:
        return self.one, self.two


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Starts everything, and ends it on leaving."""
    async with AsyncExitStack() as running:
        tables = running.enter_context(azurite.azurite())
        providers = [Provider(kind) for kind in PROVIDERS]
        for provider in providers:
            provider.start()
            running.callback(provider.stop)
        urls = {f"STANDIN_{each.kind.upper()}_URL": f"http://{processes.LOOPBACK}:{each.port}" for each in providers}
        await asyncio.gather(asyncio.to_thread(tables.ready), *(provider.ready() for provider in providers))
        settings = {"ROUTER_CONFIG": str(ROUTES), "ROUTER_DEV_KEY": DEV_KEY, **tables.environment(), **urls}
        one, two = await asyncio.gather(*(_instance(running, name, settings) for name in ("A", "B")))
        yield World(one, two, providers[0])


async def _instance(running: AsyncExitStack, name: str, settings: Mapping[str, str]) -> Instance:
    port = processes.free_port()
    process = processes.spawn([sys.executable, "-m", "local.host", "--port", str(port)], settings)
    running.callback(processes.stop, process)
    await asyncio.to_thread(processes.wait_for_port, port, process)
    client = httpx.AsyncClient(
        base_url=f"http://{processes.LOOPBACK}:{port}",
        headers={"authorization": f"Bearer {DEV_KEY}"},
        timeout=PATIENCE,
        trust_env=False,
    )
    instance = Instance(name, await running.enter_async_context(client))
    await instance.get("/health")
    return instance


async def tasks(there: World) -> None:
    """Requests of different tasks go to different targets, with the reason."""
    say("1. Each request goes where its task is served best")
    targets = set()
    for task, prompt in PROMPTS.items():
        answer = await there.one.ask(prompt)
        decision = await there.one.get(f"/v1/router/decisions/{answer.headers['x-router-decision-id']}")
        plan, target = decision["plan"], answer.headers["x-router-target"]
        targets.add(target)
        say(f"    {prompt}")
        say(
            f"      task {plan['task']['kind']} ({plan['task']['confidence']:.0%} sure) → {target}: {_reason(decision)}"
        )
        check(plan["task"]["kind"] == task, f"taken for {task}")
    cheap = await there.one.ask(PROMPTS["summarization"], "cheap")
    decision = await there.one.get(f"/v1/router/decisions/{cheap.headers['x-router-decision-id']}")
    say(f"    the same on the route `cheap` → {decision['target']}: {_reason(decision)}")
    check(len(targets) == 3, "three tasks, three targets")


def _reason(decision: Mapping[str, Any]) -> str:
    return str(next(each["reason"] for each in decision["plan"]["choices"] if each["target"] == decision["target"]))


async def killed(there: World) -> None:
    """The provider dies in the middle of an answer."""
    say("\n2. A provider is killed in the middle of an answer")
    said, error = "", None
    story = "Write a Python function. " + "Say it in many words, one after the other. " * 12
    async with there.one.client.stream("POST", CHAT, json=body(story, "auto", stream=True)) as answer:
        target = answer.headers["x-router-target"]
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            error = event.get("error") or error
            said += "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
            if len(said) > 60 and there.victim.process and there.victim.process.poll() is None:
                there.victim.kill()
                say(f"    {target} wrote “{said[:48]}…” and was killed")
    check(target == VICTIM and said, f"what {VICTIM} had written was delivered")
    check(error, "and then an error event, not a clean end")


async def opened(there: World) -> None:
    """Instance A finds the target dead and opens its breaker; B, which never asked it, knows as well."""
    say("\n3. The breaker opens, on both instances at once")
    prompt, asked = PROMPTS["code_generation"], 0
    while await there.one.breaker(VICTIM) != "open":
        if asked >= MOST_FAULTS:
            raise DemoFailed(f"{asked} requests found {VICTIM} dead, and A's breaker is still closed")
        answer, asked = await there.one.ask(prompt), asked + 1
        target, attempts = answer.headers.get("x-router-target"), answer.headers.get("x-router-attempts")
        check(answer.status_code == 200 and target != VICTIM, f"A got past {VICTIM}: {target} at attempt {attempts}")
    check(asked > 0, f"{asked} requests found {VICTIM} dead, nobody lost an answer, and A's breaker is open")
    await there.two.ask(PROMPTS["translation"])  # an instance looks while it has traffic
    seconds = await until(lambda: _is(there.two, "open"), "B hears of it")
    check(seconds < 5, f"B knew {seconds:.1f} s later, without having asked {VICTIM}")
    answer = await there.two.ask(prompt)
    check(answer.headers.get("x-router-attempts") == "1", f"B goes to {answer.headers['x-router-target']} at once")


async def _is(instance: Instance, state: str) -> bool:
    return await instance.breaker(VICTIM) == state


async def recovered(there: World) -> None:
    """The provider is back: one probe finds out, and both instances use it again."""
    say("\n4. The provider comes back; one probe finds out")
    there.victim.start()
    await there.victim.ready()
    answered: list[tuple[str, str]] = []

    async def closed() -> bool:
        for instance in there.both:
            answer = await instance.ask(PROMPTS["code_generation"])
            answered.append((instance.name, answer.headers.get("x-router-target", "nobody")))
        return all([await _is(instance, "closed") for instance in there.both])

    await until(closed, "both breakers close")
    first = next((place for place, (_, target) in enumerate(answered) if target == VICTIM), None)
    check(first is not None, f"after {first} answers by others, the request that was the probe reached {VICTIM}")
    check("nobody" not in {target for _, target in answered}, "every request meanwhile was answered")
    after = [(await instance.ask(PROMPTS["code_generation"])).headers.get("x-router-target") for instance in there.both]
    check(after == [VICTIM, VICTIM], f"A and B both send their requests to {VICTIM} again")


async def saved(there: World) -> None:
    """What all of that cost, as either instance tells it for both, against the most expensive adequate target."""
    say("\n5. What it cost")
    counted = [(await instance.get("/v1/router/status"))["statistics"] for instance in there.both]
    requests = sum(each["requests"] for each in counted)

    async def used() -> Mapping[str, Any]:
        (row,) = (await there.one.get("/v1/router/usage"))["data"]
        return dict(row)

    async def whole() -> bool:
        return bool((await used())["requests"] == requests)

    await until(whole, "A hears what B used")
    row = await used()
    spent, more = row["usd"], row["saved_usd"]
    share = more / (spent + more) if more else 0.0
    check(spent and more, f"${spent:.6f} instead of ${spent + more:.6f}: {share:.0%} saved")


async def tour() -> None:
    began = time.monotonic()
    say("Starting Azurite, three stand-in providers and two instances of the router, A and B …")
    async with world() as there:
        for part in (tasks, killed, opened, recovered, saved):
            await part(there)
    say(f"\nAll of it happened, in {time.monotonic() - began:.0f} s.")
    say("Next: `make run`, then http://127.0.0.1:7071 in a browser; docs/circuit-breaker.md, docs/strategies.md.")


def main() -> int:
    os.chdir(ROOT)
    if reason := azurite.unavailable():
        say(f"The demo shows state that two instances share, and {reason}.")
        return 1
    try:
        asyncio.run(tour())
    except DemoFailed as error:
        say(f"  ✗ {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
