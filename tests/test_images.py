"""Addresses of images are text to the router: it fetches nothing from them, wherever they lead and whoever answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from local.providers import Kind
from tests.routes_for import CHAT_PATH, KEY, Stage

SEES = {"supports": ["vision", "tools", "json_schema"]}


class Private:
    """Something that listens on the loopback interface, as a metadata service or a database may."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/private.png"

    def was_asked(self) -> bool:
        """A connection waits to be taken, whether or not anybody would say anything on it."""
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def private() -> Iterator[Private]:
    service = Private()
    yield service
    service.close()


def post(stage: Stage, path: str, body: dict[str, Any]) -> int:
    with stage.http(headers={"authorization": f"Bearer {KEY}", "anthropic-version": "2023-06-01"}) as client:
        return client.post(path, json={"model": "chat", **body}).status_code


def chat(url: str) -> dict[str, Any]:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"messages": [{"role": "user", "content": content}]}


def message(url: str) -> dict[str, Any]:
    image = {"type": "image", "source": {"type": "url", "url": url}}
    return {
        "max_tokens": 20,
        "messages": [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}],
    }


def response(url: str) -> dict[str, Any]:
    content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": "What is it?"}]
    return {"input": [{"role": "user", "content": content}]}


@pytest.mark.parametrize("kind", ["openai", "azure_openai", "anthropic"])
@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT_PATH, chat), ("/v1/messages", message), ("/v1/responses", response)],
    ids=["chat", "messages", "responses"],
)
def test_the_provider_gets_the_address_and_nobody_is_asked_at_it(
    path: str, body: Any, kind: Kind, private: Private, stage: Stage
) -> None:
    one = stage.standin(kind, "one")
    stage.serve(one, targets={"one": SEES})
    assert post(stage, path, body(private.url)) == 200
    assert private.url.encode() in one.requests[-1].asked.body
    assert not private.was_asked()


@pytest.mark.parametrize(
    "url",
    ["http://169.254.169.254/metadata/identity", "file:///etc/passwd", "gopher://[::1]/", "http://localhost/%0d%0a"],
)
def test_an_address_that_leads_inside_is_the_providers_affair(url: str, stage: Stage) -> None:
    one = stage.standin("openai", "one")
    stage.serve(one, targets={"one": SEES})
    assert post(stage, CHAT_PATH, chat(url)) in (200, 400)
    if one.requests:
        assert url.encode() in one.requests[-1].asked.body
