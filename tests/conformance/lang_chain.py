"""LangChain's ChatOpenAI and OpenAIEmbeddings as a driver. Imported late: LangChain takes a second to load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langsmith import tracing_context
from pydantic import SecretStr

from tests.conformance.jobs import RESULT, TEXTS, Done, Job
from tests.conformance.python import DATA_URL, FUNCTIONS, TIMEOUT, Invoice, trouble
from tests.routes_for import NO_TLS


class LangChain:
    """`ChatOpenAI` and `OpenAIEmbeddings`, which send text and not tokens: the router is not OpenAI's."""

    def __init__(self) -> None:
        self._http = openai.DefaultHttpxClient(verify=NO_TLS)
        self._async = openai.DefaultAsyncHttpxClient(verify=NO_TLS)  # made in any case, so give it one that is cheap

    def do(self, url: str, job: Job) -> Done:
        jobs: Mapping[str, Callable[[ChatOpenAI, Job], Done]] = {
            "plain": self._plain,
            "stream": self._stream,
            "tools": self._tools,
            "structured": self._structured,
            "image": self._image,
            "leave": self._leave,
        }
        try:
            with tracing_context(enabled=False):  # whatever the environment says, nothing is told elsewhere
                if job.do == "embeddings":
                    return self._embeddings(url, job)
                return jobs[job.do](ChatOpenAI(model=job.model, **self._options(url, job)), job)
        except openai.APIStatusError as error:
            return Done(error=trouble(error))

    def close(self) -> None:
        self._http.close()

    def _options(self, url: str, job: Job) -> dict[str, Any]:
        own = {"http_client": self._http, "http_async_client": self._async, "timeout": TIMEOUT}
        return {"base_url": f"{url}/v1", "api_key": SecretStr(job.key), "max_retries": job.retries, **own}

    def _plain(self, model: ChatOpenAI, job: Job) -> Done:
        return Done(model.invoke(job.text).text)

    def _stream(self, model: ChatOpenAI, job: Job) -> Done:
        pieces = [chunk.text for chunk in model.stream(job.text) if chunk.text]
        return Done("".join(pieces), len(pieces))

    def _leave(self, model: ChatOpenAI, job: Job) -> Done:
        chunks: Any = model.stream(job.text)
        next(chunk for chunk in chunks if chunk.text)
        chunks.close()
        return Done(pieces=1)

    def _tools(self, model: ChatOpenAI, job: Job) -> Done:
        able = model.bind_tools(FUNCTIONS)

        def talk(messages: list[Any]) -> Any:
            if not job.stream:
                return able.invoke(messages)
            first, *rest = able.stream(messages)
            return sum(rest, first)

        question = HumanMessage(job.text)
        called = talk([question])
        results = [ToolMessage(RESULT, tool_call_id=call["id"]) for call in called.tool_calls]
        answer = talk([question, called, *results])
        return Done(answer.text, calls=[[call["name"], call["args"]] for call in called.tool_calls])

    def _structured(self, model: ChatOpenAI, job: Job) -> Done:
        parsed: Any = model.with_structured_output(Invoice).invoke(job.text)
        return Done(parsed=parsed and parsed.model_dump())

    def _image(self, model: ChatOpenAI, job: Job) -> Done:
        image = {"type": "image_url", "image_url": {"url": DATA_URL}}
        return Done(model.invoke([HumanMessage([{"type": "text", "text": job.text}, image])]).text)

    def _embeddings(self, url: str, job: Job) -> Done:
        embeddings = OpenAIEmbeddings(model=job.model, check_embedding_ctx_length=False, **self._options(url, job))
        return Done(vectors=embeddings.embed_documents(list(TEXTS)))
