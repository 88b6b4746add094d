"""Stand-in providers on loopback that speak the real wire formats and go wrong on demand.

In a test: `async with serve("openai") as standin`. For people: `python -m local.providers --openai 8101 --azure 8102`.
Each answers GET, PUT and DELETE at /_standin: what it saw, how it shall behave (fields of `Behaviour`, and `queue`, a
list of faults for the coming requests), and start anew. A single request asks for a fault in the header `x-standin` or
the body field `standin`: `{"kind": "cut", "after": 3}`, for one stand-in of several with `"at": "openai"`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Literal

from local.standin_anthropic import ENDINGS, REDACT_THINKING, Anthropic
from local.standin_azure import BLOCK_ANSWER, BLOCK_PROMPT, AzureOpenAI
from local.standin_behaviour import FAULT_KINDS, Behaviour, Fault, FaultKind
from local.standin_ollama import Ollama
from local.standin_openai import OpenAI
from local.standin_server import listening
from local.standin_state import Recorded, StandIn
from local.standin_wire import Dialect

__all__ = [
    "BLOCK_ANSWER",
    "BLOCK_PROMPT",
    "ENDINGS",
    "FAULT_KINDS",
    "REDACT_THINKING",
    "Behaviour",
    "Fault",
    "FaultKind",
    "Kind",
    "Recorded",
    "StandIn",
    "serve",
]

Kind = Literal["openai", "azure_openai", "anthropic", "ollama"]
_DIALECTS: dict[Kind, Callable[[], Dialect]] = {
    "openai": OpenAI,
    "azure_openai": AzureOpenAI,
    "anthropic": Anthropic,
    "ollama": Ollama,
}
_FLAGS: dict[str, Kind] = {
    "openai": "openai",
    "azure": "azure_openai",
    "anthropic": "anthropic",
    "ollama": "ollama",
}


@asynccontextmanager
async def serve(
    kind: Kind = "openai", *, name: str | None = None, port: int = 0, behaviour: Behaviour | None = None
) -> AsyncIterator[StandIn]:
    """A stand-in in the running loop; `name` (the kind unless given) is what its answers say. Raises OSError."""
    standin = StandIn(_DIALECTS[kind](), name or kind, behaviour or Behaviour())
    async with listening(standin, port):
        yield standin


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the stand-ins that were given a port, until SIGINT or SIGTERM."""
    given = _parser().parse_args(arguments)
    ports = {kind: getattr(given, flag) for flag, kind in _FLAGS.items() if getattr(given, flag) is not None}
    behaviour = Behaviour(
        latency=given.latency,
        first_token=given.first_token,
        tokens_per_second=given.tokens_per_second,
        tokens=given.tokens,
        keys=tuple(given.key),
    )
    try:
        asyncio.run(_serve_all(ports, behaviour))
    except OSError as error:
        print(f"stand-in providers: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


async def _serve_all(ports: dict[Kind, int], behaviour: Behaviour) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C ends the loop by itself
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        for kind, port in ports.items():
            standin = await stack.enter_async_context(serve(kind, port=port, behaviour=behaviour))
            print(f"{kind} stand-in on {standin.url}", flush=True)
        await stopped.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m local.providers", description="Stand-in providers on loopback.")
    for flag, kind in _FLAGS.items():
        parser.add_argument(f"--{flag}", type=int, metavar="PORT", help=f"serve {kind} there; 0 takes a free port")
    parser.add_argument("--key", action="append", default=[], help="a key to accept; without it any key is good")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before the headers")
    parser.add_argument("--first-token", type=float, default=0.0, metavar="SECONDS", help="from there to a token")
    parser.add_argument("--tokens-per-second", type=float, metavar="NUMBER", help="as fast as it goes if left out")
    parser.add_argument("--tokens", type=int, metavar="NUMBER", help="length of an answer")
    return parser


if __name__ == "__main__":
    sys.exit(main())
