"""What telemetry says of a request and its calls: attributes of spans, dimensions of metrics, and events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from routing import telemetry_names as names
from routing.trace import Call, Told, Walked
from routing.types import Decision

NANO = 1e9
Attributes = dict[str, Any]


def some(attributes: Attributes) -> Attributes:
    """Those that are known."""
    return {name: value for name, value in attributes.items() if value is not None}


def operation(told: Told) -> str:
    return names.OPERATIONS.get(told.path, "chat")


def of_request(told: Told) -> Attributes:
    """The caller's request."""
    asked_for = {names.OPERATION: operation(told)} if told.path in names.OPERATIONS else {}
    http = {names.METHOD: "POST", names.ROUTE: told.path, names.STATUS: told.status, names.REQUEST_ID: told.id}
    return {**http, **asked_for, **_of_asking(told.walked)}


def _of_asking(walked: Walked | None) -> Attributes:
    if walked is None:
        return {}
    asked, content = walked.asked, walked.content
    return some(
        {
            names.STREAM: asked.stream,
            names.MAX_TOKENS: asked.max_tokens,
            names.TEMPERATURE: asked.temperature,
            names.TOP_P: asked.top_p,
            names.RESPONSE_MODEL: walked.model,
            names.OVERHEAD: walked.overhead_seconds,
            names.INPUT_MESSAGES: content.prompt if content else None,
            names.OUTPUT_MESSAGES: content.answer if content else None,
        }
    )


def about(decision: Decision) -> Attributes:
    """The decision in short, as a span and its event tell it."""
    plan, cost, usage = decision.plan, decision.cost, decision.usage
    return some(
        {
            names.DECISION: decision.id,
            names.CALLER: decision.caller,
            names.REQUEST_MODEL: decision.model,
            names.ROUTER_ROUTE: plan.route,
            names.STRATEGY: plan.strategy,
            names.TASK: plan.task.kind,
            names.CONFIDENCE: plan.task.confidence,
            names.TARGET: decision.target,
            names.ATTEMPTS: len(decision.attempts) + (decision.target is not None and not decision.from_cache),
            names.OUTCOME: "answered" if decision.target else "failed",
            names.EXCLUDED: len(plan.exclusions),
            names.CACHED: decision.from_cache,
            names.COST: cost.micro_usd if cost else None,
            names.SAVED: cost.saved_micro_usd if cost else None,
            names.PRICES: cost.price_version if cost else None,
            names.INPUT_TOKENS: usage.input if usage else None,
            names.OUTPUT_TOKENS: usage.output if usage else None,
            names.ESTIMATED: usage.estimated if usage else None,
        }
    )


def of_answer(walked: Walked, call: Call) -> Attributes:
    """The call that answered."""
    usage = walked.decision.usage
    tokens = (
        {
            names.INPUT_TOKENS: usage.input,
            names.OUTPUT_TOKENS: usage.output,
            names.CACHE_READ: usage.cached,
            names.CACHE_WRITE: usage.cache_write,
            names.REASONING: usage.reasoning,
            names.ESTIMATED: usage.estimated,
        }
        if usage
        else {}
    )
    return some({**tokens, names.RESPONSE_MODEL: walked.model, names.FIRST_CHUNK: first(walked, call)})


def first(walked: Walked, call: Call) -> float | None:
    """Seconds from the call to its stream's first words."""
    return None if call.spoke is None or not walked.asked.stream else (call.spoke - call.started) / NANO


def events(told: Told, walked: Walked) -> Iterator[tuple[str, Attributes, int]]:
    """What happened on the way, with its time."""
    decision = walked.decision
    said = about(decision)
    yield names.DECIDED, {**said, names.SECONDS: decision.seconds}, told.started
    targets = list(dict.fromkeys(call.target for call in walked.calls))
    if len(targets) > 1:
        failed = {call.target: call.error for call in walked.calls if call.error}
        came = {names.TARGET: targets[-1], names.FROM: targets[0], names.FALLBACKS: len(targets) - 1}
        why = {
            names.ERROR: failed.get(targets[0]),
            names.DECISION: decision.id,
            names.ROUTER_ROUTE: decision.plan.route,
        }
        yield names.FELL_BACK, some({**came, **why}), walked.calls[-1].started
    if walked.asked.stream and walked.calls and (spoke := walked.calls[-1].spoke):
        short = {names.DECISION: decision.id, names.TARGET: decision.target, names.ROUTER_ROUTE: decision.plan.route}
        yield names.STREAM_STARTED, some(short), spoke
        end = {names.OUTPUT_TOKENS: walked.tokens, names.ERROR: decision.error, names.SECONDS: decision.seconds}
        yield names.STREAM_COMPLETED, some({**short, **end}), told.ended
