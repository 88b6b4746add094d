"""What the router says about itself, and the orders it takes: health for every caller, breakers for admins."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict
from itertools import islice
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from routing.answers import json_response
from routing.api import asked_by, body_of, endpoint
from routing.breaker_state import MANUAL_LONGEST
from routing.callers import key_in
from routing.config import Route
from routing.errors import Forbidden, UnknownModel
from routing.health import BreakerView
from routing.selfcheck import checks
from routing.strategies import expected_seconds, longest_output
from routing.types import Caller, Decision, Target
from routing.wire import Wire, parse_object, validated
from routing.wiring import App

AT_ONCE = 50  # decisions turned into JSON before other requests get their turn


class DecisionQuery(BaseModel):
    """What of the decisions to list. `since` and `until` are in epoch seconds, and both are part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    caller: str | None = None
    route: str | None = None
    since: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    until: float = Field(default=math.inf, ge=0)
    limit: int = Field(default=100, ge=1, le=10_000)
    format: Literal["json", "jsonl"] = "json"


class BreakerOrder(Wire):
    """`POST /v1/router/breakers/{target}`: what an admin wants of a breaker, and why."""

    action: Literal["isolate", "close", "reset"]
    reason: str = Field(min_length=1, max_length=200)
    seconds: Annotated[float, Field(gt=0, le=MANUAL_LONGEST, strict=False)] | None = None


@endpoint
async def ready(app: App, request: Request, request_id: str) -> Response:
    """`GET /ready`: 200 when every route has a target that may be asked now; an admin gets the self-check as well."""
    shut = sorted(
        name
        for name, route in app.config.routes.items()
        if all(app.health.refusal(target.name) for target in route.targets)
    )
    body: dict[str, Any] = {"status": "unavailable" if shut else "ready", "unavailable_routes": shut}
    if key_in(request.headers) is not None:
        caller = await app.callers.authenticate(request.headers)
        if caller.role == "admin":
            body["checks"] = [asdict(check) for check in await checks(app)]
    return json_response(to_json(body), request_id, status=503 if shut else 200)


@endpoint
async def status(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/router/status`: the health of every target, as this instance sees it."""
    await app.callers.authenticate(request.headers)
    targets = [_view(view, app) for view in app.health.views().values()]
    return json_response(to_json({"targets": targets}), request_id)


@endpoint
async def explain(app: App, request: Request, request_id: str) -> Response:
    """`POST /v1/router/explain`: the plan that this chat completion would run by, and what each target would mean.

    No provider is asked, but for the target that the route's own `detector` names.
    """
    caller = await app.callers.authenticate(request.headers)
    decision = await app.router.explain(await asked_by(caller, app, request, request_id))
    route = app.config.route(decision.model, caller)
    views = app.health.views()
    targets = [_outlook(target, decision, route, views[target.name]) for target in route.targets]
    return json_response(to_json({**decision_body(decision), "targets": targets}), request_id)


@endpoint
async def decision(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/router/decisions/{id}`: why a request went where it went. Callers see their own, admins all."""
    caller = await app.callers.authenticate(request.headers)
    found = app.decisions.get(unquote(request.path_params["id"]))
    if found is None or (found.caller != caller.name and caller.role != "admin"):
        raise UnknownModel("No such decision is kept here.", code="decision_not_found")
    return json_response(to_json(decision_body(found)), request_id)


@endpoint
async def decisions(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/router/decisions`: newest first, as a list or (`format=jsonl`) a line each."""
    caller = await app.callers.authenticate(request.headers)
    wanted = validated(DecisionQuery.model_validate, dict(request.query_params))
    if caller.role != "admin":
        wanted = wanted.model_copy(update={"caller": caller.name})
    found = app.decisions.newest(caller=wanted.caller, route=wanted.route, since=wanted.since)
    listed = await _bodies(list(islice((each for each in found if each.at <= wanted.until), wanted.limit)))
    if wanted.format == "jsonl":
        lines = b"".join(to_json(each) + b"\n" for each in listed)
        return json_response(lines, request_id, media_type="application/x-ndjson")
    return json_response(to_json({"object": "list", "data": listed}), request_id)


@endpoint
async def order(app: App, request: Request, request_id: str) -> Response:
    """`POST /v1/router/breakers/{target}`: isolate, close, or back to the rule. For admins; kept with their name."""
    caller = _admin(await app.callers.authenticate(request.headers))
    target = unquote(request.path_params["target"])
    if target not in app.config.targets:
        known = ", ".join(sorted(app.config.targets))
        raise UnknownModel(f"No target {target[:100]!r}; targets are {known}.", param="target")
    body = await body_of(request, app.config.file.server.max_body_bytes)
    wanted = validated(BreakerOrder.model_validate, parse_object(body))
    until = app.clock() + wanted.seconds if wanted.seconds else None
    view = await app.health.set_manual(target, wanted.action, caller.name, wanted.reason, until)
    return json_response(to_json(_view(view, app)), request_id)


def decision_body(decision: Decision) -> dict[str, Any]:
    """A decision as JSON: the plan with each candidate's score or reason, the facts behind it, what came of it."""
    return asdict(decision)


async def _bodies(found: list[Decision]) -> list[dict[str, Any]]:
    """The decisions as JSON; other requests get their turn meanwhile."""
    bodies = []
    for place, each in enumerate(found):
        if place % AT_ONCE == 0:
            await asyncio.sleep(0)
        bodies.append(decision_body(each))
    return bodies


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


def _admin(caller: Caller) -> Caller:
    if caller.role != "admin":
        raise Forbidden('This needs a caller with role = "admin" in the routes file.')
    return caller


def _view(view: BreakerView, app: App) -> dict[str, Any]:
    target = app.config.targets[view.target]
    return {**asdict(view), "provider": target.provider, "model": target.model}
