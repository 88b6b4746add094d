"""Azure OpenAI's wire format: deployments, content filter annotations and the gateway's own errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from local.standin_answers import Said, content_text
from local.standin_behaviour import Behaviour, Fault
from local.standin_openai import OpenAI, bearer, request_id
from local.standin_wire import Answer, Asked, Operation, Refusal, encode, sse

BLOCK_PROMPT = "BLOCK_PROMPT"  # in a message: the prompt is refused, 400
BLOCK_ANSWER = "BLOCK_ANSWER"  # in a message: the answer is withheld, 200 with finish_reason content_filter

_HARMS = ("hate", "self_harm", "sexual", "violence")
_SAFE = {harm: {"filtered": False, "severity": "safe"} for harm in _HARMS}
_SAFE_PROMPT = _SAFE | {"jailbreak": {"filtered": False, "detected": False}}
_BLOCKED = _SAFE_PROMPT | {"violence": {"filtered": True, "severity": "high"}}
_PROMPT_RESULTS = [{"prompt_index": 0, "content_filter_results": _SAFE_PROMPT}]
_BLOCKED_MESSAGE = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
    "Please modify your prompt and retry."
)
_CLASSIC = "/openai/deployments/{deployment}"


class AzureOpenAI(OpenAI):
    """The v1 paths, where `model` names the deployment, and the classic ones, where the path does."""

    kind: ClassVar[str] = "azure_openai"
    token_extra: ClassVar[str] = f',"content_filter_results":{encode(_SAFE).decode()}'
    quiet_extra: ClassVar[str] = ',"content_filter_results":{}'

    def operations(self) -> tuple[tuple[str, str, Operation], ...]:
        """The endpoints under /openai/v1 and under /openai/deployments/{deployment}."""
        classic: tuple[tuple[str, str, Operation], ...] = (
            ("POST", f"{_CLASSIC}/chat/completions", self._versioned(self.chat)),
            ("POST", f"{_CLASSIC}/embeddings", self._versioned(self.embed)),
            ("POST", f"{_CLASSIC}/completions", self._versioned(self.complete)),
        )
        return self._operations("/openai/v1") + classic

    def headers(self, asked: Asked) -> Mapping[str, str]:
        """The gateway's ids, its region, and what is left of the limits."""
        left = max(0, 1_000 - asked.number)
        return {
            "x-request-id": request_id(asked),
            "apim-request-id": request_id(asked)[4:],
            "x-ms-region": "Loopback",
            "x-ratelimit-limit-requests": "1000",
            "x-ratelimit-limit-tokens": "1000000",
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-remaining-tokens": str(left * 1_000),
        }

    def chat(self, asked: Asked, behaviour: Behaviour) -> Answer:
        """The gateway looks for the deployment before its model sees the rest of the body. Raises Refusal."""
        self.authorize(asked, behaviour)
        if asked.document:
            self.model(asked, asked.document, behaviour)
        return super().chat(asked, behaviour)

    def authorize(self, asked: Asked, behaviour: Behaviour) -> None:
        """Takes an `api-key`, or a key or token as Bearer. Raises Refusal (401)."""
        key = asked.headers.get("api-key", "") or bearer(asked)
        if not key or (behaviour.keys and key not in behaviour.keys):
            raise self.fault(Fault("unauthorized"))

    def model(self, asked: Asked, request: Mapping[str, Any], behaviour: Behaviour) -> str:
        """The deployment, from the path when it names one. Raises Refusal."""
        if deployment := asked.params.get("deployment"):
            request = {"model": deployment}
        return super().model(asked, request, behaviour)

    def no_such_model(self, model: str) -> Refusal:
        """404 DeploymentNotFound."""
        message = "The API deployment for this resource does not exist. If you made it just now, wait and try again."
        return Refusal(404, message, code="DeploymentNotFound")

    def error(self, refusal: Refusal) -> dict[str, Any]:
        """The gateway's errors have a code and a message only, the model's are OpenAI's."""
        if refusal.status in (401, 403, 404, 429) or refusal.status >= 500:
            return {"code": refusal.code or str(refusal.status), "message": refusal.message} | refusal.extra
        return super().error(refusal)

    def error_event(self, refusal: Refusal) -> bytes:
        """Inside a stream the model speaks, so it is OpenAI's shape."""
        return sse(encode({"error": super().error(refusal)}))

    def fault(self, fault: Fault) -> Refusal:
        """OpenAI's faults with the gateway's codes, and its body for a blocked prompt."""
        if fault.kind == "content_filter":
            return _prompt_blocked()
        refusal = super().fault(fault)
        if fault.code is None:
            refusal.code = _GATEWAY_CODES.get((fault.kind, refusal.status), refusal.code)
        return refusal

    def inspect(self, request: Mapping[str, Any]) -> None:
        """Raises Refusal (400) for a prompt with BLOCK_PROMPT in it."""
        if _mentions(request, BLOCK_PROMPT):
            raise _prompt_blocked()

    def censor(self, request: Mapping[str, Any], said: Said) -> Said:
        """The first token alone, and `content_filter`, for a prompt with BLOCK_ANSWER in it."""
        if not _mentions(request, BLOCK_ANSWER):
            return said
        return replace(said, tokens=said.tokens[:1], calls=(), finish="content_filter")

    def whole_extra(self) -> dict[str, Any]:
        """What the filter thought of the prompt."""
        return {"prompt_filter_results": _PROMPT_RESULTS}

    def choice_extra(self) -> dict[str, Any]:
        """What the filter thought of the answer."""
        return {"content_filter_results": _SAFE}

    def preface(self) -> tuple[bytes, ...]:
        """The chunk without choices that carries what the filter thought of the prompt."""
        empty = {"choices": [], "created": 0, "id": "", "model": "", "object": ""}
        return (sse(encode(empty | {"prompt_filter_results": _PROMPT_RESULTS})),)

    def _versioned(self, operation: Operation) -> Operation:
        def checked(asked: Asked, behaviour: Behaviour) -> Answer:
            if not asked.query.get("api-version"):
                raise Refusal(404, "Resource not found")
            return operation(asked, behaviour)

        return checked


def _prompt_blocked() -> Refusal:
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _BLOCKED}
    extra = {"status": 400, "innererror": inner}
    return Refusal(400, _BLOCKED_MESSAGE, type=None, param="prompt", code="content_filter", extra=extra)


def _mentions(request: Mapping[str, Any], marker: str) -> bool:
    return any(marker in content_text(message.get("content")) for message in request["messages"])


_GATEWAY_CODES = {
    ("unauthorized", 401): "401",
    ("rate_limited", 429): "429",
    ("status", 500): "InternalServerError",
    ("status", 503): "ServiceUnavailable",
}
