"""The function app behaves alike behind the local host and behind the real worker library."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import azure.functions as func
import httpx
import pytest
from azurefunctions.extensions.http.fastapi import Request, Response
from starlette.types import ASGIApp

from local.host import Host, build, functions_of, serving
from tests.conftest import need_worker_library
from tests.worker_host import WorkerHost

FUNCTION_APP = """
import asyncio
import azure.functions as func
from azurefunctions.extensions.http.fastapi import JSONResponse, Request, Response, StreamingResponse

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
left = asyncio.Event()

@app.route(route="echo/{name?}", methods=["POST"])
async def echo(req: Request) -> Response:
    body = (await req.body()).decode()
    return JSONResponse({"name": req.path_params.get("name"), "q": req.query_params.get("q"), "body": body}, 201)

@app.route(route="fails", methods=["GET"])
async def fails(req: Request) -> Response:
    raise RuntimeError("broken on purpose")

@app.route(route="waits", methods=["POST"])
async def waits(req: Request) -> Response:
    await req.body()
    while (await req.receive())["type"] != "http.disconnect":
        pass
    left.set()
    return Response("nobody reads this")

@app.route(route="stream", methods=["GET"])
async def stream(req: Request) -> StreamingResponse:
    async def endless():
        try:
            while True:
                yield b"."
                await asyncio.sleep(0.01)
        finally:
            left.set()
    return StreamingResponse(endless(), headers={"x-kind": "stream"})
"""


@pytest.fixture(params=["local host", "worker library"])
async def small_app(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The address of a small function app behind each host, served in the test's own loop."""
    (tmp_path / "function_app.py").write_text(FUNCTION_APP)
    (tmp_path / "host.json").write_text('{"extensions": {"http": {"routePrefix": "v0"}}}')
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setitem(sys.modules, "function_app", ModuleType("replaced"))
    if request.param == "local host":
        host: ASGIApp = build(tmp_path)
    else:
        need_worker_library()
        host = worker = WorkerHost(tmp_path)
        await worker.start()
    async with serving(host) as url:
        yield f"{url}/v0"


async def test_a_function_sees_the_same_request(small_app):
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{small_app}/echo/a%20b?q=1", content="text")
        bare = await client.post(f"{small_app}/ECHO/")
    assert (answer.status_code, answer.json()) == (201, {"name": "a b", "q": "1", "body": "text"})
    assert bare.json() == {"name": None, "q": None, "body": ""}


async def test_a_function_that_raises_is_a_bare_500(small_app, caplog):
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{small_app}/fails")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


async def test_chunks_arrive_while_the_stream_runs_and_leaving_ends_it(small_app):
    async with httpx.AsyncClient() as client, client.stream("GET", f"{small_app}/stream") as response:
        assert response.headers["x-kind"] == "stream"
        assert await anext(response.aiter_raw()) == b"."
    await asyncio.wait_for(sys.modules["function_app"].left.wait(), 2)


async def test_a_client_that_leaves_before_the_answer_is_told_to_the_function(small_app):
    port = int(small_app.split(":")[2].partition("/")[0])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v0/waits HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi")
    await writer.drain()
    writer.close()
    await asyncio.wait_for(sys.modules["function_app"].left.wait(), 2)


@pytest.fixture
def refused_routes(tmp_path: Path) -> dict[str, str]:
    """The environment of a router whose routes file is refused, so that no provider is needed to answer."""
    routes = tmp_path / "routes.toml"
    routes.write_text("nonsense = 1\n")
    return {"ROUTER_CONFIG": str(routes)}


async def test_the_router_answers_with_the_environment_of_the_test(serve_app, refused_routes):
    url = serve_app(refused_routes)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{url}/health")
    assert answer.status_code == 503
    assert "nonsense" in answer.text


def test_a_blocking_client_can_ask_too(serve_app, refused_routes):
    assert httpx.get(f"{serve_app(refused_routes)}/health").status_code == 503


async def test_a_second_router_in_one_test_replaces_the_first(serve_app, refused_routes, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text("elsewhere = 1\n")
    async with httpx.AsyncClient() as client:
        first = await client.get(f"{serve_app(refused_routes)}/health")
        second = await client.get(f"{serve_app({'ROUTER_CONFIG': str(other)})}/health")
    assert ("nonsense" in first.text, "elsewhere" in second.text) == (True, True)


@pytest.mark.parametrize("serve_app", ["worker_library"], indirect=True)
async def test_the_worker_keeps_nothing_of_an_answered_request(serve_app, refused_routes):
    url = serve_app(refused_routes)
    kept = sys.modules["azure_functions_runtime.http_v2"].http_coordinator._context_references
    async with httpx.AsyncClient() as client:
        before = len(kept)
        for path in ("/health", "/v1/models", "/v1/unknown"):
            await client.get(url + path)
    assert len(kept) == before


async def test_wrong_methods_and_paths_are_404_on_both(serve_app, refused_routes):
    url = serve_app(refused_routes)
    async with httpx.AsyncClient() as client:
        answers = await asyncio.gather(client.delete(f"{url}/health"), client.get(f"{url}/nowhere"))
    assert [answer.status_code for answer in answers] == [404, 404]


async def test_the_hosts_own_homepage_is_not_in_the_way(serve_app, refused_routes):
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{serve_app(refused_routes)}/docs")).status_code == 404


def test_a_function_app_gives_out_its_functions_once():
    """Why each host imports function_app anew; when this fails they need not."""
    app = func.FunctionApp()

    @app.route(route="x")
    async def once(req: Request) -> Response:
        return Response()

    Host(functions_of(app))
    with pytest.raises(ValueError, match="unique function name"):
        functions_of(app)
