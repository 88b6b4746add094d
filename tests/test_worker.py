"""The corrections to the worker library hold, and we hear when they are no longer needed."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import uvicorn

from routing.cloud import worker


class Coordinator:
    """The worker's coordinator as far as the correction looks at it."""

    def __init__(self) -> None:
        self._context_references = {"a": SimpleNamespace(http_response="answer"), "b": SimpleNamespace()}

    def _pop_http_response(self, invocation_id: str) -> Any:
        return self._context_references[invocation_id].http_response


def module(**attributes: Any) -> ModuleType:
    made = ModuleType("http_v2")
    vars(made).update(attributes)
    return made


@pytest.fixture
def coordinator_class() -> type[Coordinator]:
    return type("HttpCoordinator", (Coordinator,), {"_pop_http_response": Coordinator._pop_http_response})


def test_an_answered_request_is_forgotten_and_the_others_are_kept(coordinator_class):
    worker.forget_answered_requests(module(HttpCoordinator=coordinator_class))
    coordinator = coordinator_class()
    assert coordinator._pop_http_response("a") == "answer"
    assert set(coordinator._context_references) == {"b"}


def test_a_request_whose_answer_is_missing_is_forgotten_too(coordinator_class):
    worker.forget_answered_requests(module(HttpCoordinator=coordinator_class))
    coordinator = coordinator_class()
    with pytest.raises(AttributeError):
        coordinator._pop_http_response("b")
    assert set(coordinator._context_references) == {"a"}


def test_the_correction_is_made_once(coordinator_class):
    worker.forget_answered_requests(module(HttpCoordinator=coordinator_class))
    once = coordinator_class._pop_http_response
    worker.forget_answered_requests(module(HttpCoordinator=coordinator_class))
    assert coordinator_class._pop_http_response is once


@pytest.mark.parametrize("attributes", [{}, {"HttpCoordinator": object}], ids=["no coordinator", "another coordinator"])
def test_a_worker_that_looks_different_is_left_alone(attributes):
    different = module(**attributes)
    worker.forget_answered_requests(different)
    assert {name: value for name, value in vars(different).items() if not name.startswith("__")} == attributes


@pytest.fixture
def access_log() -> Iterator[logging.Logger]:
    """uvicorn's access logger, put back afterwards as it was."""
    logger = logging.getLogger("uvicorn.access")
    before = (logger.level, logger.propagate, logger.handlers[:], logger.filters[:])
    yield logger
    logger.level, logger.propagate, logger.handlers, logger.filters = before


def test_requests_are_not_written_to_the_access_log_even_when_uvicorn_configures_it_later(access_log):
    written: list[str] = []
    worker.quiet_access_log()
    uvicorn.Config(app=lambda: None)
    access_log.handlers = [logging.NullHandler()]
    access_log.handlers[0].handle = lambda record: written.append(record.getMessage())
    access_log.info("GET /v1/models?code=secret")
    access_log.warning("worth knowing")
    assert written == ["worth knowing"]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The worker library's http module with its coordinator as it was delivered."""
    pytest.importorskip("azure_functions_runtime", reason="the worker library needs Python 3.13 or later")
    http_v2 = importlib.import_module("azure_functions_runtime.http_v2")
    delivered = http_v2.HttpCoordinator._pop_http_response
    delivered = getattr(delivered, "__wrapped__", delivered)
    monkeypatch.setattr(http_v2.HttpCoordinator, "_pop_http_response", delivered)
    return http_v2


async def answer_one(http_v2: ModuleType) -> int:
    """Let the library's coordinator see one request through; how many entries it keeps afterwards."""
    coordinator = object.__new__(http_v2.HttpCoordinator)  # it is a singleton, which this test leaves alone
    coordinator.__init__()
    coordinator.set_http_request("id", object())
    answer = asyncio.create_task(coordinator.await_http_response_async("id"))
    await coordinator.get_http_request_async("id")
    coordinator.set_http_response("id", "answer")
    assert await answer == "answer"
    return len(coordinator._context_references)


async def test_the_worker_library_forgets_every_answered_request_once_corrected(library):
    worker.install()
    assert await answer_one(library) == 0


async def test_the_worker_library_still_needs_the_correction(library):
    """When this fails the library forgets by itself, and routing/cloud/worker.py may go."""
    assert await answer_one(library) == 1
