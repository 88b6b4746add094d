"""What `make run` starts: it answers what it tells people to paste, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import pytest

from local import azurite as azurite_service
from local import processes
from local.host import build
from local.run import STAND_INS
from routing import config

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Router:
    """A started `local.run`: its process, what it started, what it printed, and its address."""

    process: subprocess.Popen[str]
    children: list[psutil.Process]
    greeting: str

    @property
    def url(self) -> str:
        return re.findall(r"http://127\.0\.0\.1:\d+", self.greeting)[0]

    def pasted(self, first_word: str) -> str:
        """The greeting from the line that starts with `first_word` to the next empty line."""
        return self.greeting[self.greeting.index(f"\n{first_word}") :].strip().partition("\n\n")[0]

    def gone(self) -> bool:
        """Whether the process and everything it started ends within ten seconds."""
        self.process.wait(10)
        return not psutil.wait_procs(self.children, timeout=10)[1]


def until_the_end(greeting: IO[str]) -> Iterator[str]:
    for line in greeting:
        yield line
        if line.startswith("print("):
            return


@contextmanager
def running(*options: str, **environment: str) -> Iterator[Router]:
    command = [sys.executable, "-m", "local.run", "--port", "0", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            greeting = "".join(until_the_end(process.stdout))
            yield Router(process, psutil.Process(process.pid).children(), greeting)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with running() as started:
        yield started


def run(command: list[str] | str, **options: Any) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, cwd=ROOT, **options).stdout


def test_the_curl_line_works_when_pasted(router):
    answer = run(router.pasted("curl"), shell=True)
    assert answer.startswith("HTTP/1.1 200")
    assert '"role":"assistant"' in answer


def test_the_openai_example_is_five_lines_and_works_when_pasted(router):
    example = router.pasted("from openai")
    assert len(example.splitlines()) == 5
    assert "Hello" in run([sys.executable, "-c", example])


def test_the_development_key_is_the_one_it_prints(router):
    key = re.findall(r"key +(\S+)", router.greeting)[0]
    answers = [
        httpx.get(f"{router.url}/v1/models", headers={"authorization": f"Bearer {given}"}) for given in (key, "wrong")
    ]
    assert [answer.status_code for answer in answers] == [200, 401]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_everything_it_started_ends_with_it(number):
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells children that their parent was killed")
    with running() as router:
        assert len(router.children) == 1 + (azurite_service.unavailable() is None)
        assert run(router.pasted("curl"), shell=True).startswith("HTTP/1.1 200")
        router.process.send_signal(number)
        assert router.gone()
        assert router.process.stderr is not None
        assert router.process.stderr.read() == ""


def test_the_stand_ins_are_told_where_they_fail_on_demand(router):
    fault = {"fault": {"kind": "status", "status": 503}}
    named = re.findall(r"(openai|azure|ollama) (http://127\.0\.0\.1:\d+)", router.greeting)
    for name, url in named:
        kind = httpx.put(f"{url}/_standin", json=fault).json()["kind"]
        assert kind.startswith(name)
    assert len(named) == 3
    try:
        assert run(router.pasted("curl"), shell=True).startswith("HTTP/1.1 502")
    finally:
        for _, url in named:
            httpx.delete(f"{url}/_standin")


def test_without_node_it_says_so_and_keeps_state_in_memory(tmp_path):
    with running(PATH=str(tmp_path)) as router:
        assert "in memory, because node is not installed (install nodejs and npm" in router.greeting
        assert httpx.get(f"{router.url}/health").status_code == 200


def test_a_routes_file_of_ones_own_starts_no_stand_ins(tmp_path):
    routes = tmp_path / "routes.toml"
    routes.write_text("nonsense = 1\n")
    with running("--routes", str(routes), PATH=str(tmp_path)) as router:
        assert router.children == []
        assert "those of the routes file" in router.greeting
        assert "nonsense" in httpx.get(f"{router.url}/health").text


OWN_ROUTES = """
providers.own = { type = "openai", base_url = "http://127.0.0.1:9" }
targets.only = { provider = "own", model = "m" }
callers.app = { key = "env:OWN_KEY" }
"""


@pytest.mark.parametrize("key", [None, "sk-of-my-own"], ids=["no key set", "a key set"])
def test_what_is_printed_gets_in_by_a_routes_file_of_ones_own_too(tmp_path, key):
    routes = tmp_path / "routes.toml"
    routes.write_text(OWN_ROUTES)
    given = {"OWN_KEY": key} if key else {}
    with running("--routes", str(routes), PATH=str(tmp_path), **given) as router:
        asked = run(router.pasted("curl"), shell=True, env={**os.environ, **given})
        assert "Every target that could be asked failed: only (Unavailable)" in asked
        assert ("sk-of-my-own" in router.greeting, "OWN_KEY" in router.greeting) == (False, key is not None)
        if key:
            assert 'api_key=os.environ["OWN_KEY"]' in router.pasted("import os")


NO_PORT = "error: argument --port: '{}' is no port; ports are 0 (any) to 65535\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--routes", "missing.toml"), "There is no routes file {root}/missing.toml\n", id="routes file"),
        pytest.param(
            ("--port", "{port}"),
            "Port {port} is taken by another process. Choose another one: PORT={next}\n",
            id="taken port",
        ),
        pytest.param(("--port", "65536"), NO_PORT.format("65536"), id="no port"),
        pytest.param(("--port", "http"), NO_PORT.format("http"), id="no number"),
    ],
)
def test_what_is_in_the_way_is_named_in_one_line(options, message):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        known = {"root": ROOT, "port": port, "next": port + 1}
        command = [sys.executable, "-m", "local.run", *(option.format(**known) for option in options)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode != 0
        assert done.stderr.endswith(message.format(**known))
        assert "Traceback" not in done.stderr


def test_a_port_that_may_not_be_had_is_named(monkeypatch):
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    with pytest.raises(SystemExit, match=r"Port 80 cannot be had: Permission denied\. Choose another one: PORT=7071"):
        processes.listen(80)


def test_ctrl_c_while_things_still_start_is_no_accident():
    with subprocess.Popen(
        [sys.executable, "-m", "local.run", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not (children := psutil.Process(process.pid).children()):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        try:
            _, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
        assert (process.returncode, stderr) == (0, b"")
        assert not psutil.wait_procs(children, timeout=10)[1]


def test_a_child_that_ends_before_it_listens_is_named():
    child = processes.spawn([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(RuntimeError, match="ended with 3"):
        processes.wait_for_port(processes.free_port(), child)


def test_a_child_that_ignores_the_signal_is_killed():
    stubborn = "import signal, sys; signal.signal(15, signal.SIG_IGN); sys.stderr.write('x'); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", stubborn], stderr=subprocess.PIPE, start_new_session=True) as child:
        assert child.stderr is not None
        child.stderr.read(1)
        processes.stop(child, patience=0.05)
        assert child.returncode == -signal.SIGKILL


async def test_the_sample_settings_are_complete_for_func_start():
    values = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]
    loaded = config.load(ROOT / values["ROUTER_CONFIG"], values)
    assert {reference for _, reference in loaded.references()} <= {f"env:{name}" for name in values}
    ports = {name: values[f"STANDIN_{name.upper()}_URL"].rpartition(":")[2] for name in STAND_INS}
    started = "local.providers " + " ".join(f"--{name} {port}" for name, port in ports.items())
    assert started in (ROOT / "README.md").read_text()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(build(ROOT)), base_url="http://host") as client:
        timers = {entry["name"] for entry in (await client.get("/admin/functions")).json()}
    needless = {name.split(".")[1] for name, value in values.items() if name.endswith(".Disabled") and value == "true"}
    assert needless == timers, "a timer wants a blob service, which a laptop need not have"
