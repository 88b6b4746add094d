"""OpenAI's wire format."""

from __future__ import annotations

import base64
import json
import random
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from local.standin_answers import Call, Said, fragments, prompt_tokens, say
from local.standin_behaviour import Behaviour, Fault
from local.standin_completions import complete
from local.standin_quirks import bent
from local.standin_requests import chat_request, embedding_request, json_object
from local.standin_responses import respond
from local.standin_wire import Answer, Asked, Operation, Refusal, Stream, Whole, encode, sse

_DONE = sse(b"[DONE]")
_DIMENSIONS = 16  # of an embedding, unless the request says
_CREATED = 1_760_000_000  # of every model


class OpenAI:
    """The dialect all others here are written as a difference from."""

    kind: ClassVar[str] = "openai"
    id_prefix: ClassVar[str] = "chatcmpl-"
    fingerprint: ClassVar[str] = "fp_standin00"
    token_extra: ClassVar[str] = ""  # JSON fields of a streamed choice that carries text
    quiet_extra: ClassVar[str] = ""  # and of one that does not
    role_each_chunk: ClassVar[bool] = False
    whole_calls: ClassVar[bool] = False  # streams a tool call in one piece
    usage_details: ClassVar[bool] = True
    several_choices: ClassVar[bool] = True

    def operations(self) -> tuple[tuple[str, str, Operation], ...]:
        """The endpoints under /v1."""
        return self._operations("/v1")

    def headers(self, asked: Asked) -> Mapping[str, str]:
        """Request id and rate limits, plainly counted down from a round number."""
        left = max(0, 10_000 - asked.number)
        return {
            "x-request-id": request_id(asked),
            "openai-organization": "standin",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-remaining-tokens": str(left * 200),
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-reset-tokens": "1ms",
        }

    def refuse(self, refusal: Refusal) -> Whole:
        """`{"error": {"message", "type", "param", "code"}}`."""
        return Whole(refusal.status, encode({"error": self.error(refusal)}), refusal.headers)

    def error_event(self, refusal: Refusal) -> bytes:
        """The same object as a `data:` event."""
        return sse(encode({"error": self.error(refusal)}))

    def error(self, refusal: Refusal) -> dict[str, Any]:
        """The error object of a body or of an event."""
        known = {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code}
        return known | refusal.extra

    def fault(self, fault: Fault) -> Refusal:
        """What OpenAI answers when it is ill, busy, unpaid or asked too much."""
        refusal = _FAULTS.get(fault.kind, _ill)(fault)
        refusal.message, refusal.code = fault.message or refusal.message, fault.code or refusal.code
        return refusal

    def chat(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """Answers a chat request. Raises Refusal."""
        self.authorize(asked, behaviour)
        request = self.heeded(bent(chat_request(asked), behaviour.quirks))
        model = self.model(asked, request, behaviour)
        self.inspect(request)
        count = (request.get("n") or 1) if self.several_choices else 1
        said = [self.censor(request, say(asked.standin, model, request, behaviour))] * count
        completion = Completion(self.id_prefix + request_id(asked)[4:], model, request, tuple(said), behaviour)
        return self._streamed(completion) if request.get("stream") else self._whole(completion)

    def authorize(self, asked: Asked, behaviour: Behaviour) -> None:
        """Raises Refusal (401) without a valid Bearer key."""
        key = bearer(asked)
        if not key:
            raise Refusal(401, "You didn't provide an API key: send it as 'Authorization: Bearer KEY'.")
        if behaviour.keys and key not in behaviour.keys:
            raise _unauthorized(Fault("unauthorized"))

    def model(self, asked: Asked, request: Mapping[str, Any], behaviour: Behaviour) -> str:
        """The model that answers. Raises Refusal: 400 without one, 404 for one that is not there."""
        model = request.get("model")
        if not isinstance(model, str) or not model:
            raise Refusal(400, "you must provide a model parameter")
        if behaviour.models and model not in behaviour.models:
            raise self.no_such_model(model)
        return model

    def no_such_model(self, model: str) -> Refusal:
        """404 for a model outside the list."""
        return Refusal(404, f"The model `{model}` does not exist or is not yours to use.", code="model_not_found")

    def heeded(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Where a dialect overlooks a part of the request."""
        return request

    def inspect(self, request: Mapping[str, Any]) -> None:
        """Where a dialect refuses a prompt for what it says."""

    def censor(self, request: Mapping[str, Any], said: Said) -> Said:
        """Where a dialect withholds an answer for what it says."""
        return said

    def whole_extra(self) -> dict[str, Any]:
        """Fields a dialect adds to a completion that is not streamed."""
        return {}

    def choice_extra(self) -> dict[str, Any]:
        """Fields a dialect adds to each of its choices."""
        return {}

    def preface(self) -> tuple[bytes, ...]:
        """Events a dialect sends before the first choice."""
        return ()

    def responses(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """Answers a Responses request. Raises Refusal."""
        return respond(self, asked, behaviour)

    def embed(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """Unit vectors, the same for the same input. Raises Refusal."""
        self.authorize(asked, behaviour)
        request, inputs = embedding_request(asked)
        request = bent(request, behaviour.quirks)
        model = self.model(asked, request, behaviour)
        size = request.get("dimensions") or _DIMENSIONS
        packed = request.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": place, "embedding": _packed(v) if packed else v}
            for place, v in enumerate(_vector(entry, size) for entry in inputs)
        ]
        tokens = sum(max(1, (len(entry) + 3) // 4) if isinstance(entry, str) else len(entry) for entry in inputs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Whole(200, encode({"object": "list", "data": data, "model": model, "usage": usage}))

    def complete(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """Text that goes on from each prompt. Raises Refusal."""
        self.authorize(asked, behaviour)
        model = self.model(asked, json_object(asked), behaviour)
        return complete(asked, model, f"cmpl-{request_id(asked)[4:]}")

    def models(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """The list of models, one called "stand-in" when any name is served."""
        self.authorize(asked, behaviour)
        names = behaviour.models or ("stand-in",)
        return Whole(200, encode({"object": "list", "data": [_described(name, asked) for name in names]}))

    def one_model(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """One model of the list. Raises Refusal."""
        self.authorize(asked, behaviour)
        return Whole(200, encode(_described(self.model(asked, asked.params, behaviour), asked)))

    def _operations(self, base: str) -> tuple[tuple[str, str, Operation], ...]:
        return (
            ("POST", f"{base}/chat/completions", self.chat),
            ("POST", f"{base}/embeddings", self.embed),
            ("POST", f"{base}/completions", self.complete),
            ("POST", f"{base}/responses", self.responses),
            ("GET", f"{base}/models", self.models),
            ("GET", f"{base}/models/{{model:path}}", self.one_model),
        )

    def _whole(self, completion: Completion) -> Whole:
        choices = [
            {"index": i, "message": _message(said), "logprobs": None, "finish_reason": said.finish}
            | self.choice_extra()
            for i, said in enumerate(completion.said)
        ]
        document = completion.head("chat.completion", self.fingerprint) | {
            "choices": choices,
            "usage": completion.usage(self.usage_details),
        }
        return Whole(200, encode(document | self.whole_extra()), tokens=completion.length)

    def _streamed(self, completion: Completion) -> Stream:
        wants_usage = bool((completion.request.get("stream_options") or {}).get("include_usage"))
        head = encode(completion.head("chat.completion.chunk", self.fingerprint))[:-1].decode()
        tail = "]" + (',"usage":null}' if wants_usage and self.usage_details else "}")

        def event(choice: str) -> bytes:
            return f'data: {head},"choices":[{choice}{tail}\n\n'.encode()

        last = '{"role":"assistant","content":""}' if self.role_each_chunk else "{}"
        ends = [event(self._choice(i, last, said.finish)) for i, said in enumerate(completion.said)]
        if wants_usage:
            usage = encode(completion.usage(self.usage_details)).decode()
            ends.append(f'data: {head},"choices":[],"usage":{usage}}}\n\n'.encode())
        opening = tuple(event(choice) for choice in self._openings(completion))
        tokens = tuple(event(choice) for choice in self._tokens(completion))
        return Stream(self.preface() + opening, tokens, (*ends, _DONE))

    def _openings(self, completion: Completion) -> Iterator[str]:
        if self.role_each_chunk:
            return
        for index, said in enumerate(completion.said):
            content = "null" if said.calls else '""'
            yield self._choice(index, f'{{"role":"assistant","content":{content},"refusal":null}}')

    def _tokens(self, completion: Completion) -> Iterator[str]:
        role = '"role":"assistant",' if self.role_each_chunk else ""
        for index, said in enumerate(completion.said):
            for token in said.tokens:
                text = json.dumps(token, ensure_ascii=False)
                yield self._choice(index, f'{{{role}"content":{text}}}', extra=self.token_extra)
            for place, call in enumerate(said.calls):
                for piece in _call_pieces(place, call, self.whole_calls):
                    yield self._choice(index, f'{{{role}"tool_calls":[{encode(piece).decode()}]}}')

    def _choice(self, index: int, delta: str, finish: str | None = None, extra: str | None = None) -> str:
        finish_reason = f'"{finish}"' if finish else "null"
        rest = self.quiet_extra if extra is None else extra
        return f'{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":{finish_reason}{rest}}}'


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer before it is written down."""

    id: str
    model: str
    request: Mapping[str, Any]
    said: tuple[Said, ...]
    behaviour: Behaviour

    @property
    def length(self) -> int:
        """Tokens of all choices, the hidden ones included."""
        return sum(said.length for said in self.said) + self.behaviour.reasoning_tokens

    def head(self, kind: str, fingerprint: str) -> dict[str, Any]:
        """The fields before `choices`."""
        head: dict[str, Any] = {"id": self.id, "object": kind, "created": int(time.time()), "model": self.model}
        return head | {"system_fingerprint": fingerprint}

    def usage(self, details: bool) -> dict[str, Any]:
        """Tokens used; cached ones are part of the prompt's and reasoning ones of the completion's."""
        prompt = max(prompt_tokens(self.request["messages"]), self.behaviour.cached_tokens)
        counts = {"prompt_tokens": prompt, "completion_tokens": self.length, "total_tokens": prompt + self.length}
        if not details:
            return counts
        thought = {"reasoning_tokens": self.behaviour.reasoning_tokens, "audio_tokens": 0}
        return counts | {
            "prompt_tokens_details": {"cached_tokens": self.behaviour.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": thought | {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        }


def request_id(asked: Asked) -> str:
    """`req_` and 32 hex digits that no other request of a running stand-in has."""
    return f"req_{zlib.crc32(asked.standin.encode()):08x}{asked.number:024x}"


def bearer(asked: Asked) -> str:
    """The Bearer key, or nothing."""
    scheme, _, key = asked.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _message(said: Said) -> dict[str, Any]:
    content = None if said.calls else "".join(said.tokens)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    if said.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in said.calls
        ]
    return message


def _call_pieces(place: int, call: Call, whole: bool) -> Iterator[dict[str, Any]]:
    first = {"name": call.name, "arguments": call.arguments if whole else ""}
    yield {"index": place, "id": call.id, "type": "function", "function": first}
    for fragment in () if whole else fragments(call.arguments):
        yield {"index": place, "function": {"arguments": fragment}}


def _described(name: str, asked: Asked) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": asked.standin}


def _vector(entry: object, size: int) -> list[float]:
    source = random.Random(json.dumps(entry))
    raw = [source.gauss(0, 1) for _ in range(size)]
    length = sum(x * x for x in raw) ** 0.5
    return [x / length for x in raw]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _ill(fault: Fault) -> Refusal:
    kind = "server_error" if fault.status >= 500 else "invalid_request_error"
    return Refusal(fault.status, f"The stand-in was told to answer {fault.status}.", type=kind, headers=_waits(fault))


def _rate_limited(fault: Fault) -> Refusal:
    message = "Rate limit reached: too many requests. Please try again later."
    return Refusal(429, message, type="requests", code="rate_limit_exceeded", headers=_waits(fault))


def _insufficient_quota(fault: Fault) -> Refusal:
    message = "You exceeded your current quota, please check your plan and billing details."
    return Refusal(429, message, type="insufficient_quota", code="insufficient_quota")


def _unauthorized(fault: Fault) -> Refusal:
    return Refusal(401, "Incorrect API key provided.", code="invalid_api_key")


def _content_filter(fault: Fault) -> Refusal:
    return Refusal(400, "The prompt was refused by the content filter.", param="prompt", code="content_filter")


def _too_long(fault: Fault) -> Refusal:
    message = "This model's maximum context length is 8192 tokens. However, your messages are longer."
    return Refusal(400, message, param="messages", code="context_length_exceeded")


def _waits(fault: Fault) -> dict[str, str]:
    given = {"retry-after": fault.retry_after, "retry-after-ms": fault.retry_after_ms}
    return {name: f"{value:.10g}" for name, value in given.items() if value is not None}


_FAULTS = {
    "rate_limited": _rate_limited,
    "insufficient_quota": _insufficient_quota,
    "unauthorized": _unauthorized,
    "content_filter": _content_filter,
    "context_length_exceeded": _too_long,
}
