"""Serves the router on this machine with everything it needs: what `make run` starts.

    python -m local.run [--port PORT] [--routes FILE]

Without --routes the router uses local/routes.dev.toml and stand-in providers on loopback; with it, the providers of
that file, with keys from the environment. A caller whose key is not set there gets the development key. Azurite keeps
the state; without it the state is in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from local import azurite, processes
from local.processes import a_port, listen

ROOT = Path(__file__).resolve().parent.parent
DEV_ROUTES = ROOT / "local" / "routes.dev.toml"
DEV_KEY = "sk-local-dev"
DEV_SETTING = "ROUTER_DEV_KEY"  # the key's app setting in DEV_ROUTES
STAND_INS = ("openai", "azure", "ollama")


@dataclass(frozen=True, slots=True)
class StandIns:
    """The started stand-in providers: one process, one loopback port each."""

    process: subprocess.Popen[bytes]
    ports: Mapping[str, int]

    def environment(self) -> dict[str, str]:
        return {f"STANDIN_{name.upper()}_URL": url for name, url in self.urls().items()}

    def urls(self) -> dict[str, str]:
        return {name: f"http://{processes.LOOPBACK}:{port}" for name, port in self.ports.items()}

    def ready(self) -> None:
        for port in self.ports.values():
            processes.wait_for_port(port, self.process)


@dataclass(frozen=True, slots=True)
class Entrance:
    """A way in for who has just started this: a caller's key, or the app setting that holds it, and a model."""

    key: str | None
    setting: str | None
    model: str


@contextmanager
def stand_ins() -> Iterator[StandIns]:
    """Start the stand-in providers on free ports and end them on leaving; does not wait for them to listen."""
    ports = {name: processes.free_port() for name in STAND_INS}
    options = [text for name, port in ports.items() for text in (f"--{name}", str(port))]
    process = processes.spawn([sys.executable, "-m", "local.providers", *options])
    try:
        yield StandIns(process, ports)
    finally:
        processes.stop(process)


def main() -> None:
    options = _options()
    # `make` may be killed without a word; a process started from a shell lives on as usual.
    if sys.platform == "linux" and "MAKELEVEL" in os.environ:
        processes.die_with(signal.SIGTERM)
    came = _noted_signals()
    routes = Path(options.routes or DEV_ROUTES).resolve()
    if not routes.is_file():
        raise SystemExit(f"There is no routes file {routes}")
    sock = listen(options.port)
    os.chdir(ROOT)
    with ExitStack() as running:
        started = _start(running, with_stand_ins=options.routes is None)
        os.environ |= {"ROUTER_CONFIG": str(routes), **_environment(started)}
        _serve(sock, routes, started, came)


def _serve(sock: socket.socket, routes: Path, started: list[azurite.Azurite | StandIns], came: list[int]) -> None:
    import asyncio  # the host and the app take a second to import, in which Azurite and the stand-ins start

    from local.host import AppError, build, serve_until_signalled
    from local.route_table import RouteError

    try:
        app = build(ROOT)
    except (AppError, RouteError) as error:
        raise SystemExit(f"The function app cannot be served: {error}") from None
    entrance = _entrance(routes)
    for service in started:
        service.ready()

    def listening(url: str) -> None:
        if came:
            signal.raise_signal(came[0])  # again, for the server that hears the signals from here on
        else:
            print(_greeting(url, started, entrance), flush=True)

    asyncio.run(serve_until_signalled(app, sock, listening))


def _noted_signals() -> list[int]:
    """The signals that come from now on. The first one is only noted, for an exit raised in the middle of things might
    be swallowed: Python ignores it in its hooks around a fork. The second one ends the process at once."""
    came: list[int] = []

    def note(number: int, _: object) -> None:
        if came:
            sys.exit(1)
        came.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return came


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=a_port, default=7071, help="loopback port to serve on (default: 7071)")
    parser.add_argument("--routes", help="routes file with real providers (default: the stand-ins)")
    return parser.parse_args()


def _start(running: ExitStack, with_stand_ins: bool) -> list[azurite.Azurite | StandIns]:
    started: list[azurite.Azurite | StandIns] = []
    if azurite.unavailable() is None:
        started.append(running.enter_context(azurite.azurite()))
    if with_stand_ins:
        started.append(running.enter_context(stand_ins()))
    return started


def _environment(started: list[azurite.Azurite | StandIns]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for service in started:
        environment |= service.environment()
    return environment


def _entrance(routes: Path) -> Entrance:
    """The first caller whose key is an app setting; one that is not set gets the development key."""
    from routing import config  # as late as the app
    from routing.errors import Misconfigured

    try:
        loaded = config.load(routes, os.environ)
    except Misconfigured as refused:
        print("The routes file is refused:", *refused.errors, sep="\n  ", file=sys.stderr)
        return Entrance(None, None, "auto")
    named = (reference for path, reference in loaded.references() if path.startswith("callers."))
    setting = next((name.removeprefix("env:") for name in named if name.startswith("env:")), None)
    model = "auto" if "auto" in loaded.routes else next(iter([*loaded.file.routes, *loaded.routes]), "auto")
    given = os.environ.get(setting) if setting else None
    if setting is None or (given and setting != DEV_SETTING):
        return Entrance(None, setting, model)
    os.environ[setting] = given or DEV_KEY
    return Entrance(os.environ[setting], setting, model)


def _greeting(url: str, started: list[azurite.Azurite | StandIns], entrance: Entrance) -> str:
    reason = azurite.unavailable()
    state = f"in memory, because {reason}" if reason else "in Azurite, forgotten at the end"
    known = entrance.key or (f"in {entrance.setting}" if entrance.setting else "that of a caller in the routes file")
    return f"""
The router listens on {url} (Ctrl-C ends it)
  key        {known}
  providers  {_providers(started)}
  state      {state}

Ask it with curl:

{_curl(url, entrance)}

or with the openai package, which .venv/bin/python has:

{_example(url, entrance)}
"""


def _providers(started: list[azurite.Azurite | StandIns]) -> str:
    urls = [f"{name} {url}" for each in started if isinstance(each, StandIns) for name, url in each.urls().items()]
    return f"stand-ins on loopback: {', '.join(urls)}" if urls else "those of the routes file"


def _curl(url: str, entrance: Entrance) -> str:
    """The line for a shell. A key that is no development key is not repeated: the shell looks it up."""
    header = shlex.quote(f"Authorization: Bearer {entrance.key or 'YOUR-KEY'}")
    if entrance.key is None and entrance.setting:
        header = f'"Authorization: Bearer ${entrance.setting}"'
    body = json.dumps({"model": entrance.model, "messages": [{"role": "user", "content": "Hello"}]})
    given = f"-H {header} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    return f"curl -i {url}/v1/chat/completions {given}"


def _example(url: str, entrance: Entrance) -> str:
    looked_up = entrance.key is None and entrance.setting is not None
    key = f"os.environ[{json.dumps(entrance.setting)}]" if looked_up else json.dumps(entrance.key or "YOUR-KEY")
    lines = [
        *(["import os"] if looked_up else []),
        "from openai import OpenAI",
        f'client = OpenAI(base_url="{url}/v1", api_key={key})',
        'messages = [{"role": "user", "content": "Hello"}]',
        f"reply = client.chat.completions.create(model={json.dumps(entrance.model)}, messages=messages)",
        "print(reply.choices[0].message.content)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
