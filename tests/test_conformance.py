"""Every declared cell of the conformance matrix holds, and the page that tells of them says the same."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache

import pytest

from local.providers import Fault, Kind, StandIn
from tests.conformance import node
from tests.conformance.cells import CLIENTS, EXEMPTIONS, FEATURES, PROVIDERS, Cell, cells
from tests.conformance.jobs import ALL_TOOLS, HELLO, ONE_TOOL, PIXEL, RESULT, TEXTS, TOOLS, Done, Driver, Job
from tests.conftest import LoopThread, unavailable
from tests.routes_for import KEY, Stage
from tools import compatibility

KIND: dict[str, Kind] = {
    "openai": "openai",
    "azure_openai": "azure_openai",
    "azure_classic": "azure_openai",
    "anthropic": "anthropic",
    "ollama": "ollama",
}
PYTHON_DRIVERS = {
    "openai-python": "tests.conformance.python.OpenAIPython",
    "responses-python": "tests.conformance.responses.OpenAIResponses",
    "anthropic-python": "tests.conformance.python.AnthropicPython",
    "langchain": "tests.conformance.lang_chain.LangChain",
}
SEEING = ["tools", "json_schema", "vision"]
RETRY_AFTER = 7  # seconds


@dataclass(frozen=True, slots=True)
class Ring:
    """One client before the router and one stand-in behind it."""

    client: Driver
    standin: StandIn
    stage: Stage

    def do(self, do: str, **fields: object) -> Done:
        return self.client.do(self.stage.url, Job(do, **{"key": KEY, **fields}))  # type: ignore[arg-type]

    def serve(self, cell: Cell, *, supports: list[str] | None = None, retries: int = 1) -> None:
        features = supports or [*SEEING, *([] if cell.provider == "anthropic" else ["embeddings"])]
        name = self.standin.name
        self.stage.serve(
            self.standin,
            targets={name: {"supports": features}},
            providers={name: {"api_version": "2024-10-21"} if cell.provider == "azure_classic" else {}},
            route={"retry": {"retries": retries, "backoff_seconds": 0.01}},
        )


@pytest.fixture(scope="module")
def python_client() -> Iterator[Callable[[str], Driver]]:
    """The driver of a client by its name, made when it is first wanted."""
    with ExitStack() as stack:

        @cache
        def made(client: str) -> Driver:
            module, _, name = PYTHON_DRIVERS[client].rpartition(".")
            driver: Driver = stack.enter_context(closing(getattr(importlib.import_module(module), name)()))
            return driver

        yield made


@pytest.fixture(scope="session")
def node_process() -> Iterator[node.Node]:
    if reason := node.unavailable():
        unavailable(reason)
    with node.node_clients() as process:
        yield process


@pytest.fixture(scope="module")
def standins(hosts_loop: LoopThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, StandIn]]:
    """One stand-in per kind of provider."""

    def nothing(_: object) -> str:
        raise NotImplementedError

    stage = Stage(nothing, hosts_loop, tmp_path_factory.mktemp("standins"))
    yield {name: stage.standin(kind, name.replace("_", "-")) for name, kind in KIND.items()}
    stage.close()


@pytest.fixture
def ring(cell: Cell, stage: Stage, standins: dict[str, StandIn], request: pytest.FixtureRequest) -> Iterator[Ring]:
    """A router before the cell's stand-in, both as new."""
    if CLIENTS[cell.client].pinned_in == "package.json":
        client: Driver = request.getfixturevalue("node_process").driver(cell.client)
    else:
        client = request.getfixturevalue("python_client")(cell.client)
    standin = standins[cell.provider]
    standin.reset()
    made = Ring(client, standin, stage)
    made.serve(cell)
    yield made
    standin.reset()


def heard(ring: Ring, text: str = HELLO) -> str:
    name = ring.standin.name
    return f"{name} (model-of-{name}) heard: {text}"


def check_plain(ring: Ring, cell: Cell) -> None:
    assert ring.do("plain") == Done(heard(ring))


def check_stream(ring: Ring, cell: Cell) -> None:
    done = ring.do("stream")
    assert (done.text, done.error) == (heard(ring), None)
    assert done.pieces > 2


def check_tools(ring: Ring, cell: Cell, text: str = ONE_TOOL, stream: bool = False) -> None:
    done = ring.do("tools", text=text, stream=stream)
    assert done.error is None
    assert [name for name, _ in done.calls] == list(TOOLS if text == ALL_TOOLS else TOOLS[:1])
    assert all(set(arguments) == {"city"} for _, arguments in done.calls)
    assert done.text.startswith(heard(ring, RESULT))
    assert ring.standin.asked == 2


def check_parallel_tools(ring: Ring, cell: Cell) -> None:
    check_tools(ring, cell, ALL_TOOLS, stream=True)


def check_structured(ring: Ring, cell: Cell) -> None:
    done = ring.do("structured")
    assert done.error is None
    assert set(done.parsed) == {"number", "lines", "paid"}


def check_images(ring: Ring, cell: Cell) -> None:
    assert ring.do("image") == Done(heard(ring))
    assert PIXEL in ring.standin.requests[0].asked.body.decode()


def check_embeddings(ring: Ring, cell: Cell) -> None:
    done = ring.do("embeddings")
    assert done.error is None
    first, second, third = done.vectors
    assert len(done.vectors) == len(TEXTS)
    assert (first == third, first == second, bool(first)) == (True, False, True)


def refused(ring: Ring, do: str, status: int, *, asked: int = 0, **fields: object) -> Done:
    """Asserts that the client raises that status, after the stand-in was asked so often."""
    done = ring.do(do, **fields)
    assert done.error is not None, done
    assert done.error.status == status, done.error
    assert ring.standin.asked == asked
    return done


def check_error_400(ring: Ring, cell: Cell) -> None:
    ring.serve(cell, supports=["tools", "json_schema"])
    done = refused(ring, "image", 400)
    assert done.error is not None
    assert "lacks vision" in done.error.message


def check_error_401(ring: Ring, cell: Cell) -> None:
    refused(ring, "plain", 401, key="wrong")


def check_error_404(ring: Ring, cell: Cell) -> None:
    done = refused(ring, "stream", 404, model="gpt-9")
    assert done.error is not None
    assert "chat, gpt-alias" in done.error.message


def check_error_429(ring: Ring, cell: Cell) -> None:
    ring.serve(cell, retries=0)
    ring.standin.behave(fault=Fault("rate_limited", retry_after=RETRY_AFTER))
    done = refused(ring, "plain", 429, asked=1)
    assert done.error is not None
    assert done.error.retry_after == str(RETRY_AFTER)


def check_cancel(ring: Ring, cell: Cell) -> None:
    ring.standin.behave(tokens=10_000, tokens_per_second=200)
    assert ring.do("leave").pieces == 1
    ring.stage.until(ring.standin, lambda it: len(it.cancelled) == 1)
    assert ring.standin.running == 0


def check_retries(ring: Ring, cell: Cell) -> None:
    ring.standin.behave(fault=Fault("status", status=503))
    refused(ring, "plain", 502, asked=2, retries=0 if cell.exemption else 2)


CHECKS: dict[str, Callable[[Ring, Cell], None]] = {
    "plain": check_plain,
    "stream": check_stream,
    "tools": check_tools,
    "parallel_tools": check_parallel_tools,
    "structured": check_structured,
    "images": check_images,
    "embeddings": check_embeddings,
    "error_400": check_error_400,
    "error_401": check_error_401,
    "error_404": check_error_404,
    "error_429": check_error_429,
    "cancel": check_cancel,
    "retries": check_retries,
}
ALL = list(cells())
OFFERED, NOT_OFFERED = ([cell for cell in ALL if cell.offered is wanted] for wanted in (True, False))


@pytest.mark.parametrize("serve_app", ["local_host"], indirect=True, ids=[""])
@pytest.mark.parametrize("cell", OFFERED, ids=str)
def test_what_is_offered_works(cell, ring):
    CHECKS[cell.feature](ring, cell)


@pytest.mark.parametrize("serve_app", ["local_host"], indirect=True, ids=[""])
@pytest.mark.parametrize("cell", NOT_OFFERED, ids=str)
def test_what_is_not_offered_says_so(cell, ring):
    done = ring.do(cell.feature)
    assert done.error is not None
    if cell.exemption.says:
        assert (done.error.status, done.error.lacks) == (400, False)
        assert cell.exemption.says in done.error.message
    else:
        assert done.error.lacks
    assert ring.standin.asked == 0


def test_every_feature_is_checked_against_every_provider():
    assert list(CHECKS) == list(FEATURES)
    assert list(KIND) == list(PROVIDERS)
    assert len({str(cell) for cell in ALL}) == len(ALL) == len(CLIENTS) * len(FEATURES) * len(PROVIDERS)


@pytest.mark.parametrize("exemption", EXEMPTIONS, ids=lambda exemption: f"{exemption.client}-{exemption.feature}")
def test_every_exemption_covers_a_cell(exemption):
    assert any(cell.exemption is exemption for cell in ALL)


def test_the_page_is_fresh():
    assert compatibility.PAGE.read_text(encoding="utf-8") == compatibility.page(), "run `python -m tools.compatibility`"
