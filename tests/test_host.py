"""The local host routes, answers and stops as the Azure Functions host does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import azure.functions as func
import httpx
import pytest
from azurefunctions.extensions.http.fastapi import JSONResponse, Request, Response, StreamingResponse

from local.host import Host, functions_of, serving
from local.route_table import RouteError, RouteTable

ROOT = Path(__file__).resolve().parent.parent


def table(*routes: str, prefix: str = "") -> RouteTable[str]:
    found: RouteTable[str] = RouteTable(prefix)
    for route in routes:
        found.add(route, ["GET"], route)
    return found


@pytest.mark.parametrize(
    ("route", "path", "parameters"),
    [
        pytest.param("health", "/health", {}, id="literal"),
        pytest.param("health", "/Health/", {}, id="case and trailing slash do not matter"),
        pytest.param("/", "/", {}, id="root"),
        pytest.param("models/{id}", "/models/GPT-5", {"id": "GPT-5"}, id="parameter keeps its case"),
        pytest.param("models/{id?}", "/models", {}, id="optional parameter left out"),
        pytest.param("models/{id?}", "/models/a", {"id": "a"}, id="optional parameter given"),
        pytest.param("files/{*rest}", "/files/a/b", {"rest": "a/b"}, id="catch-all"),
        pytest.param("files/{*rest}", "/files", {}, id="catch-all of nothing"),
        pytest.param("runs/{n:int}", "/runs/17", {"n": "17"}, id="constraint met"),
        pytest.param("a/{name}.json", "/a/b.json", {"name": "b"}, id="parameter inside a segment"),
    ],
)
def test_a_route_answers_the_paths_that_its_template_describes(route, path, parameters):
    assert table(route).find("GET", path) == (route, parameters)


@pytest.mark.parametrize(
    ("route", "path"),
    [
        pytest.param("models/{id}", "/models", id="parameter missing"),
        pytest.param("models/{id}", "/models/a/b", id="parameter holds no slash"),
        pytest.param("runs/{n:int}", "/runs/x", id="constraint not met"),
        pytest.param("health", "/healthy", id="longer path"),
        pytest.param("a.b", "/aXb", id="a dot is a dot"),
    ],
)
def test_other_paths_are_not_answered(route, path):
    assert table(route).find("GET", path) is None


def test_the_more_exact_route_wins_whatever_the_order_of_registration():
    routes = table("{*all}", "a/{free}", "a/{n:int}", "a/b")
    answers = [routes.find("GET", path) for path in ("/a/b", "/a/7", "/a/c", "/z/z")]
    assert [answer[0] for answer in answers if answer] == ["a/b", "a/{n:int}", "a/{free}", "{*all}"]


def test_the_prefix_stands_before_every_route():
    assert table("health", prefix="api").find("GET", "/api/health") == ("health", {})
    assert table("health", prefix="api").find("GET", "/health") is None


@pytest.mark.parametrize("route", ["admin/users", "/Runtime", "administrators"])
def test_a_route_that_the_functions_host_keeps_for_itself_is_refused(route):
    with pytest.raises(RouteError, match="starts with admin or runtime"):
        table(route)


@pytest.mark.parametrize("route", ["a/b", "a/{x}"])
def test_two_functions_on_one_route_are_refused(route):
    with pytest.raises(RouteError, match="two functions answer"):
        table(route, route)


def test_an_unknown_constraint_is_refused_naming_the_known_ones():
    with pytest.raises(RouteError, match="'prime'; it knows int, long"):
        table("a/{n:prime}")


def test_an_unreadable_segment_is_refused():
    with pytest.raises(RouteError, match="cannot read the route segment"):
        table("a/{x-y}")


def sample_app(left: asyncio.Event, ticks: list[bool]) -> func.FunctionApp:
    """A function app of every kind of function; it sets `left` when a client left, and adds to `ticks`."""
    app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

    @app.route(route="echo/{name?}", methods=["GET", "POST"])
    async def echo(req: Request, context: func.Context) -> Response:
        return JSONResponse({"name": req.path_params.get("name"), "function": context.function_name})

    @app.route(route="any")
    def any_method(req: Request) -> Response:
        return Response(req.method)

    @app.route(route="wrong")
    async def wrong(req: Request) -> Response:
        return "text"

    @app.route(route="waits", methods=["POST"])
    async def waits(req: Request) -> Response:
        await req.body()
        while (await req.receive())["type"] != "http.disconnect":
            pass
        left.set()
        return Response("nobody reads this")

    @app.route(route="stream")
    async def stream(req: Request) -> StreamingResponse:
        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"."
                    await asyncio.sleep(0.01)
            finally:
                left.set()

        return StreamingResponse(endless())

    add_other_triggers(app, ticks)
    return app


def add_other_triggers(app: func.FunctionApp, ticks: list[bool]) -> None:
    @app.timer_trigger(schedule="0 * * * * *", arg_name="timer")
    async def tick(timer: func.TimerRequest) -> None:
        ticks.append(timer.past_due)

    @app.queue_trigger(arg_name="message", queue_name="jobs", connection="AzureWebJobsStorage")
    async def job(message: func.QueueMessage) -> None:
        raise AssertionError("only timers are run by hand")


@pytest.fixture
def left() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def ticks() -> list[bool]:
    return []


@pytest.fixture
def host(left, ticks) -> Host:
    return Host(functions_of(sample_app(left, ticks)))


@pytest.fixture
async def client(host: Host) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(host)
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as ours:
        yield ours


async def test_a_function_gets_its_parameters_and_its_context(client):
    assert (await client.get("/echo/a%20b")).json() == {"name": "a b", "function": "echo"}
    assert (await client.get("/echo")).json()["name"] is None


async def test_an_encoded_slash_stays_encoded_and_splits_nothing(client):
    assert (await client.get("/echo/a%2fb")).json()["name"] == "a%2Fb"


async def test_a_wrong_method_is_as_unknown_as_a_wrong_path(client):
    assert (await client.delete("/echo")).status_code == 404
    assert (await client.get("/nothing")).status_code == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH"])
async def test_a_function_that_names_no_method_answers_all(client, method):
    assert (await client.request(method, "/any")).text == method


async def test_anything_but_a_response_is_an_error_that_names_the_function(client):
    with pytest.raises(TypeError, match="function wrong returned str"):
        await client.get("/wrong")


async def test_timers_are_listed_and_can_be_run(client, ticks):
    listed = {
        function["name"]: function["trigger"]["type"] for function in (await client.get("/admin/functions")).json()
    }
    assert listed == {"tick": "timerTrigger", "job": "queueTrigger"}
    assert (await client.post("/admin/functions/tick")).status_code == 202
    assert ticks == [False]


async def test_other_triggers_and_unknown_names_cannot_be_run(client):
    assert (await client.post("/admin/functions/job")).status_code == 400
    assert (await client.post("/admin/functions/nobody")).status_code == 404
    assert (await client.get("/admin/functions/tick")).status_code == 404


async def test_the_host_says_that_it_runs(client):
    assert (await client.get("/admin/host/status")).json() == {"state": "Running"}


def test_a_refused_route_names_its_function():
    refused = func.FunctionApp()

    @refused.route(route="admin/x")
    async def peek(req: Request) -> Response:
        return Response()

    with pytest.raises(RouteError, match=r"function peek: route 'admin/x'"):
        Host(functions_of(refused))


@pytest.mark.parametrize("request_line", ["POST /waits", "GET /stream"])
async def test_a_client_that_leaves_is_told_to_the_function(host, left, request_line):
    async with serving(host) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(f"{request_line} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
        if "stream" in request_line:
            await reader.readuntil(b".")
        writer.close()
        await asyncio.wait_for(left.wait(), 2)


async def test_a_stream_that_outlasts_the_drain_is_cut(host, left):
    async with httpx.AsyncClient() as client, serving(host, drain_seconds=0) as url:
        request = client.build_request("GET", f"{url}/stream")
        response = await client.send(request, stream=True)
    await asyncio.wait_for(left.wait(), 2)
    await response.aclose()


FUNCTION_APP = """
import asyncio
import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, Response, StreamingResponse

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)

@app.route(route="{route}")
async def stream(req: Request) -> StreamingResponse:
    async def body():
        yield b"first "
        await asyncio.get_running_loop().run_in_executor(None, input)
        yield b"last"
    return StreamingResponse(body())
"""


def app_folder(folder: Path, route: str = "stream", source: str = FUNCTION_APP) -> Path:
    (folder / "function_app.py").write_text(source.replace("{route}", route))
    (folder / "host.json").write_text(json.dumps({"extensions": {"http": {"routePrefix": "v0"}}}))
    return folder


@contextmanager
def started_host(folder: Path, *options: str) -> Iterator[Any]:
    command = [sys.executable, "-m", "local.host", "--app", str(folder), *options]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


async def test_on_sigterm_a_running_stream_finishes_and_new_connections_are_refused(tmp_path):
    with started_host(app_folder(tmp_path), "--port", "0") as process:
        url = process.stdout.readline().strip()
        async with httpx.AsyncClient() as client, client.stream("GET", f"{url}/v0/stream") as response:
            pieces = response.aiter_raw()
            assert await anext(pieces) == b"first "
            process.send_signal(signal.SIGTERM)
            await refused(url)
            process.stdin.write("\n")
            process.stdin.flush()
            assert await anext(pieces) == b"last"
        assert process.wait(10) == 0


async def refused(url: str) -> None:
    """Return once a new connection is refused; the test's time limit is the caller's."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.01)


def test_a_second_signal_ends_the_host_without_waiting(tmp_path):
    with started_host(app_folder(tmp_path), "--port", "0") as process:
        url = process.stdout.readline().strip()
        with httpx.stream("GET", f"{url}/v0/stream") as response:
            next(response.iter_raw())
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 1


def test_a_taken_port_is_named_with_what_to_do(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with started_host(app_folder(tmp_path), "--port", str(port)) as process:
            assert process.wait(10) == 1
            assert (
                process.stderr.read()
                == f"Port {port} is taken by another process. Choose another one: PORT={port + 1}\n"
            )


def test_several_processes_may_share_a_port(tmp_path):
    folder = app_folder(tmp_path)
    with started_host(folder, "--port", "0", "--reuse-port") as first:
        port = first.stdout.readline().strip().rpartition(":")[2]
        with started_host(folder, "--port", port, "--reuse-port") as second:
            assert second.stdout.readline().strip().endswith(f":{port}")


@pytest.mark.parametrize(
    ("route", "source", "message"),
    [
        pytest.param(
            "admin/x", FUNCTION_APP, "function stream: route 'admin/x' starts with admin", id="reserved route"
        ),
        pytest.param("x", "", "must hold exactly one FunctionApp, not 0", id="no app"),
    ],
)
def test_an_app_that_the_functions_host_would_refuse_is_refused_at_start(tmp_path, route, source, message):
    with started_host(app_folder(tmp_path, route, source), "--port", "0") as process:
        _, stderr = process.communicate(timeout=10)
        assert process.returncode == 1
        assert message in stderr
        assert os.linesep not in stderr.strip()
