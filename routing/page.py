"""The page for people at `/` and the chat element for any page: files, with the headers that guard them."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from routing.answers import json_response
from routing.api import endpoint
from routing.wiring import App

STATIC = Path(__file__).parent / "static"
_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)
# The browser refuses everything that is not named here: other scripts, other hosts, frames, text turned into markup.
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data:; script-src 'self' {script}; style-src {style}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)


async def page(request: Request) -> Response:
    """`GET /`: served also when the configuration is refused, because the page says why."""
    return _file(request, "index.html")


async def component(request: Request) -> Response:
    """`GET /llm-chat.js`: for any page, of any host."""
    return _file(request, "llm-chat.js")


@endpoint
async def caller(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/router/caller`: whose key it is, so that the page offers what that caller may do."""
    found = await app.callers.authenticate(request.headers)
    return json_response(to_json({"name": found.name, "role": found.role}), request_id)


def _file(request: Request, name: str) -> Response:
    content, headers = _read(name)
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)


@cache
def _read(name: str) -> tuple[bytes, dict[str, str]]:
    """A file's content and headers. They stay the same for as long as the process lives."""
    content = (STATIC / name).read_bytes()
    headers = {
        "cache-control": "no-cache",
        "etag": f'"{sha256(content).hexdigest()[:32]}"',
        "x-content-type-options": "nosniff",
    }
    if name.endswith(".js"):
        return content, {
            **headers,
            "content-type": "text/javascript; charset=utf-8",
            "cross-origin-resource-policy": "cross-origin",
        }
    return content, {
        **headers,
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy(content),
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
    }


def policy(html: bytes) -> str:
    """The content security policy that lets the page's own script and style run, by their hashes, and nothing else."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, inline in _INLINE.findall(html):
        hashes[kind.decode()].append(f"'sha256-{b64encode(sha256(inline).digest()).decode()}'")
    return _POLICY.format(script=" ".join(hashes["script"]), style=" ".join(hashes["style"]))
