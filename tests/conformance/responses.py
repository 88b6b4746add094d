"""The OpenAI SDK for Python where it speaks Responses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai

from tests.conformance.jobs import PARAMETERS, RESULT, TOOLS, Done, Job
from tests.conformance.python import DATA_URL, Invoice, OpenAIPython, user

FUNCTIONS: list[Any] = [{"type": "function", "name": name, "parameters": PARAMETERS, "strict": None} for name in TOOLS]


class OpenAIResponses(OpenAIPython):
    """`openai.OpenAI().responses`, and its embeddings as they are."""

    def _plain(self, client: openai.OpenAI, job: Job, content: Any = None) -> Done:
        return Done(client.responses.create(model=job.model, input=content or job.text).output_text)

    def _pieces(self, client: openai.OpenAI, job: Job) -> Iterator[str]:
        with client.responses.create(model=job.model, input=job.text, stream=True) as events:
            for event in events:
                if event.type == "response.output_text.delta" and event.delta:
                    yield event.delta

    def _respond(self, client: openai.OpenAI, job: Job, items: list[Any]) -> Any:
        asked: dict[str, Any] = {"model": job.model, "input": items, "tools": FUNCTIONS}
        if not job.stream:
            return client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            return stream.get_final_response()

    def _tools(self, client: openai.OpenAI, job: Job) -> Done:
        called = self._respond(client, job, [user(job.text)])
        calls = [item for item in called.output if item.type == "function_call"]
        said = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in called.output]
        results = [{"type": "function_call_output", "call_id": call.call_id, "output": RESULT} for call in calls]
        answer = self._respond(client, job, [user(job.text), *said, *results])
        return Done(answer.output_text, calls=[[call.name, json.loads(call.arguments)] for call in calls])

    def _structured(self, client: openai.OpenAI, job: Job) -> Done:
        parsed = client.responses.parse(model=job.model, input=job.text, text_format=Invoice).output_parsed
        return Done(parsed=parsed and parsed.model_dump())

    def _image(self, client: openai.OpenAI, job: Job) -> Done:
        image = {"type": "input_image", "image_url": DATA_URL, "detail": "auto"}
        return self._plain(client, job, [user([{"type": "input_text", "text": job.text}, image])])
