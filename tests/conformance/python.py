"""The clients of Python as drivers: the SDKs of OpenAI and of Anthropic; LangChain has a module of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anthropic
import openai
from pydantic import BaseModel

from tests.conformance.jobs import LACKING, PARAMETERS, PIXEL, RESULT, TEXTS, TOOLS, Done, Job, Trouble
from tests.routes_for import NO_TLS

TIMEOUT = 10.0  # seconds
DATA_URL = f"data:image/png;base64,{PIXEL}"
FUNCTIONS: list[Any] = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in TOOLS]


class Invoice(BaseModel):
    number: int
    lines: list[str]
    paid: bool


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def trouble(error: Any) -> Trouble:
    """What an SDK's status error tells."""
    headers = error.response.headers
    return Trouble(type(error).__name__, error.status_code, str(error), headers.get("retry-after"))


class OpenAIPython:
    """`openai.OpenAI`."""

    def __init__(self) -> None:
        self._http = openai.DefaultHttpxClient(verify=NO_TLS)

    def do(self, url: str, job: Job) -> Done:
        client = openai.OpenAI(
            base_url=f"{url}/v1", api_key=job.key, max_retries=job.retries, timeout=TIMEOUT, http_client=self._http
        )
        jobs: Mapping[str, Callable[[openai.OpenAI, Job], Done]] = {
            "plain": self._plain,
            "stream": self._stream,
            "tools": self._tools,
            "structured": self._structured,
            "image": self._image,
            "embeddings": self._embeddings,
            "leave": self._leave,
        }
        try:
            return jobs[job.do](client, job)
        except openai.APIStatusError as error:
            return Done(error=trouble(error))

    def close(self) -> None:
        self._http.close()

    def _plain(self, client: openai.OpenAI, job: Job, content: Any = None) -> Done:
        messages: Any = [user(content or job.text)]
        answer = client.chat.completions.create(model=job.model, messages=messages)
        return Done(answer.choices[0].message.content or "")

    def _pieces(self, client: openai.OpenAI, job: Job) -> Iterator[str]:
        messages: Any = [user(job.text)]
        with client.chat.completions.create(model=job.model, messages=messages, stream=True) as stream:
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    def _stream(self, client: openai.OpenAI, job: Job) -> Done:
        pieces = list(self._pieces(client, job))
        return Done("".join(pieces), len(pieces))

    def _leave(self, client: openai.OpenAI, job: Job) -> Done:
        pieces: Any = self._pieces(client, job)
        next(pieces)
        pieces.close()
        return Done(pieces=1)

    def _talk(self, client: openai.OpenAI, job: Job, messages: list[Any]) -> Any:
        asked: dict[str, Any] = {"model": job.model, "messages": messages, "tools": FUNCTIONS}
        if not job.stream:
            return client.chat.completions.create(**asked).choices[0].message
        with client.chat.completions.stream(**asked) as stream:
            return stream.get_final_completion().choices[0].message

    def _tools(self, client: openai.OpenAI, job: Job) -> Done:
        called = self._talk(client, job, [user(job.text)])
        results = [{"role": "tool", "tool_call_id": call.id, "content": RESULT} for call in called.tool_calls]
        spoken = called.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
        answer = self._talk(client, job, [user(job.text), spoken, *results])
        calls = [[call.function.name, json.loads(call.function.arguments)] for call in called.tool_calls]
        return Done(answer.content, calls=calls)

    def _structured(self, client: openai.OpenAI, job: Job) -> Done:
        messages: Any = [user(job.text)]
        answer = client.chat.completions.parse(model=job.model, messages=messages, response_format=Invoice)
        parsed = answer.choices[0].message.parsed
        return Done(parsed=parsed and parsed.model_dump())

    def _image(self, client: openai.OpenAI, job: Job) -> Done:
        image = {"type": "image_url", "image_url": {"url": DATA_URL}}
        return self._plain(client, job, [{"type": "text", "text": job.text}, image])

    def _embeddings(self, client: openai.OpenAI, job: Job) -> Done:
        answer = client.embeddings.create(model=job.model, input=list(TEXTS))
        return Done(vectors=[entry.embedding for entry in answer.data])


class AnthropicPython:
    """`anthropic.Anthropic`."""

    def __init__(self) -> None:
        self._http = anthropic.DefaultHttpxClient(verify=NO_TLS)

    def do(self, url: str, job: Job) -> Done:
        client = anthropic.Anthropic(
            base_url=url, api_key=job.key, max_retries=job.retries, timeout=TIMEOUT, http_client=self._http
        )
        if job.do == "embeddings":
            return Done() if hasattr(client, "embeddings") else LACKING
        jobs: Mapping[str, Callable[[anthropic.Anthropic, Job], Done]] = {
            "plain": self._plain,
            "stream": self._stream,
            "tools": self._tools,
            "structured": self._structured,
            "image": self._image,
            "leave": self._leave,
        }
        try:
            return jobs[job.do](client, job)
        except anthropic.APIStatusError as error:
            return Done(error=trouble(error))

    def close(self) -> None:
        self._http.close()

    def _asked(self, job: Job, *messages: Any) -> dict[str, Any]:
        return {"model": job.model, "max_tokens": 500, "messages": list(messages)}

    def _text(self, message: Any) -> str:
        return "".join(block.text for block in message.content if block.type == "text")

    def _plain(self, client: anthropic.Anthropic, job: Job, content: Any = None) -> Done:
        return Done(self._text(client.messages.create(**self._asked(job, user(content or job.text)))))

    def _stream(self, client: anthropic.Anthropic, job: Job) -> Done:
        with client.messages.stream(**self._asked(job, user(job.text))) as stream:
            pieces = list(stream.text_stream)
        return Done("".join(pieces), len(pieces))

    def _leave(self, client: anthropic.Anthropic, job: Job) -> Done:
        with client.messages.stream(**self._asked(job, user(job.text))) as stream:
            next(stream.text_stream)
        return Done(pieces=1)

    def _talk(self, client: anthropic.Anthropic, job: Job, *messages: Any) -> Any:
        tools = [{"name": name, "input_schema": PARAMETERS} for name in TOOLS]
        asked = {**self._asked(job, *messages), "tools": tools}
        if not job.stream:
            return client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            return stream.get_final_message()

    def _tools(self, client: anthropic.Anthropic, job: Job) -> Done:
        called = self._talk(client, job, user(job.text))
        calls = [block for block in called.content if block.type == "tool_use"]
        spoken = [block.model_dump(exclude_none=True) for block in called.content]
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": RESULT} for call in calls]
        said = {"role": "assistant", "content": spoken}
        answer = self._talk(client, job, user(job.text), said, user(results))
        return Done(self._text(answer), calls=[[call.name, call.input] for call in calls])

    def _structured(self, client: anthropic.Anthropic, job: Job) -> Done:
        message = client.messages.parse(**self._asked(job, user(job.text)), output_format=Invoice)
        return Done(parsed=message.parsed_output and message.parsed_output.model_dump())

    def _image(self, client: anthropic.Anthropic, job: Job) -> Done:
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        return self._plain(client, job, [{"type": "text", "text": job.text}, {"type": "image", "source": source}])
