"""What a client is asked to do and what came of it, in words that all clients share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

MODEL = "chat"
HELLO = "Hello there"
ONE_TOOL, ALL_TOOLS = "Use your tool", "Use your tools"
RESULT = "sun"  # of every tool
TOOLS = ("get_weather", "get_time")
PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
TEXTS = ("red", "green", "red")
# JSON for a Node process, so that both languages ask the same.
WORDS: dict[str, Any] = {
    "hello": HELLO,
    "result": RESULT,
    "tools": TOOLS,
    "parameters": PARAMETERS,
    "pixel": PIXEL,
    "texts": TEXTS,
}


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to do.

    `do` is plain, stream, tools (one piece when `stream` is off), structured, image, embeddings, or leave: read the
    first piece of a stream and go.
    """

    do: str
    key: str
    model: str = MODEL
    text: str = HELLO
    stream: bool = False
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it. `calls` are the tools called, each with its arguments; `error` is None when all went well."""

    text: str = ""
    pieces: int = 0
    calls: list[list[Any]] = field(default_factory=list)
    parsed: Any = None
    vectors: list[list[float]] = field(default_factory=list)
    error: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error as the client raises it: its class, and what it tells of the answer."""

    raised: str
    status: int
    message: str
    retry_after: str | None = None  # the header
    lacks: bool = False  # the client has no such call


class Driver(Protocol):
    """A client that does jobs at the router whose base URL is `url`."""

    def do(self, url: str, job: Job) -> Done: ...


LACKING = Done(error=Trouble("AttributeError", 0, "", lacks=True))
