"""`POST /v1/router/explain`: the plan that a request would run by, and what each target would mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from routing import openai_api
from routing.answers import json_response
from routing.api import asked_by, endpoint
from routing.config import Route
from routing.health import BreakerView
from routing.router import Asked
from routing.status import decision_body
from routing.strategies import expected_seconds, longest_output
from routing.types import Decision, Target
from routing.wire import validated
from routing.wiring import App

Endpoint = Literal["chat/completions", "messages", "responses", "embeddings", "completions"]
Explained = tuple[Asked, Awaitable[Decision]]


class ExplainQuery(BaseModel):
    """Which endpoint the body is meant for."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)  # clients add their own

    endpoint: Endpoint = "chat/completions"


@endpoint
async def explain(app: App, request: Request, request_id: str) -> Response:
    """No provider is asked, but for the target that the route's own `detector` names."""
    wanted = validated(ExplainQuery.model_validate, dict(request.query_params))
    asked, deciding = await _EXPLAINED[wanted.endpoint](app, request, request_id)
    decision = await deciding
    route = app.config.route(decision.model, asked.caller)
    views = app.health.views()
    targets = [_outlook(target, decision, route, views[target.name]) for target in route.targets]
    return json_response(to_json({**decision_body(decision), "targets": targets}), request_id)


async def _chat(app: App, request: Request, request_id: str) -> Explained:
    caller = await app.callers.authenticate(request.headers)
    asked = await asked_by(caller, app, request, request_id)
    return asked, app.router.explain(asked)


async def _messages(app: App, request: Request, request_id: str) -> Explained:
    from routing import messages_api  # loaded when first needed, as by its own endpoint

    asked, dialect = await messages_api.asked_by(app, request, request_id)
    return asked, dialect.located(app.router.explain(asked))


async def _responses(app: App, request: Request, request_id: str) -> Explained:
    from routing import responses_api

    asked, dialect = await responses_api.asked_by(app, request, request_id)
    return asked, dialect.located(app.router.explain(asked))


async def _embeddings(app: App, request: Request, request_id: str) -> Explained:
    asked = await openai_api.embeddings_asked(app, request, request_id)
    return asked, app.router.explain(asked)


async def _completions(app: App, request: Request, request_id: str) -> Explained:
    asked = await openai_api.completions_asked(app, request, request_id)
    return asked, app.router.explain(asked)


_EXPLAINED: Mapping[Endpoint, Callable[[App, Request, str], Awaitable[Explained]]] = {
    "chat/completions": _chat,
    "messages": _messages,
    "responses": _responses,
    "embeddings": _embeddings,
    "completions": _completions,
}


def _outlook(target: Target, decision: Decision, route: Route, view: BreakerView) -> dict[str, Any]:
    """What the request would meet at one target, expected and at worst. Null is unknown."""
    facts = decision.facts
    choice = next((choice for choice in decision.plan.choices if choice.target == target.name), None)
    longest = (choice and choice.output_limit) or longest_output(target, facts)
    cost = facts.cost.get(target.name)
    return {
        "target": target.name,
        "provider": target.provider,
        "model": target.model,
        "breaker": view.state,
        "share": view.share,
        "expected": {
            "micro_usd": cost and cost.expected,
            "seconds": expected_seconds(target, facts) if target.name in facts.speed else None,
        },
        "worst": {
            "micro_usd": cost and longest and cost.input + cost.per_output_token * longest,
            "seconds": route.settings.deadline_seconds,
        },
    }
