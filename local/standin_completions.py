"""OpenAI's text completions, which came before chat: a stand-in goes on from each prompt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from local.standin_answers import Said, fragments
from local.standin_requests import completion_request
from local.standin_wire import Answer, Asked, Stream, Whole, encode, sse

_USUAL_LIMIT = 16  # tokens, unless the request says


def complete(asked: Asked, model: str, id_: str) -> Answer:
    """The answer to a request of a model that is there. Raises Refusal."""
    request, prompts = completion_request(asked)
    limit = request.get("max_tokens", _USUAL_LIMIT)
    said = [_cut(asked.standin, model, prompt, limit) for prompt in prompts for _ in range(request.get("n") or 1)]
    head = {"id": id_, "object": "text_completion", "created": int(time.time()), "model": model}
    read, written = sum(len(fragments(prompt)) for prompt in prompts), sum(choice.length for choice in said)
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    if not request.get("stream"):
        choices = [_choice(place, "".join(choice.tokens), choice.finish) for place, choice in enumerate(said)]
        return Whole(200, encode(head | {"choices": choices, "usage": usage}), tokens=written)
    return _stream(request, head, said, usage)


def _stream(request: Mapping[str, Any], head: dict[str, Any], said: list[Said], usage: dict[str, int]) -> Stream:
    def event(**fields: Any) -> bytes:
        return sse(encode(head | fields))

    tokens = [event(choices=[_choice(place, token)]) for place, one in enumerate(said) for token in one.tokens]
    ends = [event(choices=[_choice(place, "", one.finish)]) for place, one in enumerate(said)]
    if (request.get("stream_options") or {}).get("include_usage"):
        ends.append(event(choices=[], usage=usage))
    return Stream((), tuple(tokens), (*ends, sse(b"[DONE]")))


def _choice(place: int, text: str, finish: str | None = None) -> dict[str, Any]:
    return {"text": text, "index": place, "logprobs": None, "finish_reason": finish}


def _cut(standin: str, model: str, prompt: str, limit: int) -> Said:
    tokens = fragments(f" and {standin} ({model}) goes on from: {prompt}")
    return Said(tokens[:limit], "length" if limit < len(tokens) else "stop")
