"""What the router says about itself, and the orders it takes: health for every caller, breakers for admins."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from routing.answers import json_response
from routing.api import body_of, endpoint
from routing.breaker_state import MANUAL_LONGEST
from routing.callers import key_in
from routing.decisions import place_of
from routing.documents import Wanted
from routing.errors import Forbidden, RouterError, UnknownModel
from routing.health import BreakerView
from routing.selfcheck import Check, checks, secret_checks
from routing.types import Caller, Decision
from routing.wire import Wire, parse_object, validated
from routing.wiring import App

_log = logging.getLogger(__name__)
AT_ONCE = 50  # decisions turned into JSON before other requests get their turn


def _moment(value: Any) -> Any:
    """Epoch seconds of a time in ISO 8601, UTC unless it says otherwise; numbers are those already."""
    try:
        return float(value)
    except ValueError:
        pass
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("must be epoch seconds, or a time such as 2026-01-31T12:00:00Z") from None


Moment = Annotated[float, BeforeValidator(_moment)]


class DecisionQuery(BaseModel):
    """What of the decisions to list. `since` and `until` are times, and both are part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    caller: str | None = None
    route: str | None = None
    since: Moment | None = Field(default=None, ge=0, allow_inf_nan=False)
    until: Moment = Field(default=math.inf, ge=0)
    after: str | None = Field(default=None, pattern=r"^dec_[0-9a-f]{32}$")  # the last one of the page before
    limit: int = Field(default=100, ge=1, le=10_000)
    format: Literal["json", "jsonl"] = "json"


class BreakerOrder(Wire):
    """`POST /v1/router/breakers/{target}`: what an admin wants of a breaker, and why. A field misspelt is refused."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    action: Literal["isolate", "close", "reset"]
    reason: str = Field(min_length=1, max_length=200)
    seconds: Annotated[float, Field(gt=0, le=MANUAL_LONGEST)] | None = None


@endpoint
async def ready(app: App, request: Request, request_id: str) -> Response:
    """`GET /ready`: 200 when every route has a target that may be asked now; an admin gets the self-check as well.

    While no caller's key can be read there is no admin either: then whoever sends a key is told what keeps them away.
    """
    shut = sorted(
        name
        for name, route in app.config.routes.items()
        if all(app.health.refusal(target.name) for target in route.targets)
    )
    body: dict[str, Any] = {"status": "unavailable" if shut else "ready", "unavailable_routes": shut}
    if key_in(request.headers) is not None:
        if found := await _checks_for(request.headers, app):
            body["checks"] = [asdict(check) for check in found]
        if app.callers.unreadable():
            body["status"] = "unavailable"
    return json_response(to_json(body), request_id, status=200 if body["status"] == "ready" else 503)


async def _checks_for(headers: Mapping[str, str], app: App) -> list[Check]:
    try:
        caller = await app.callers.authenticate(headers)
    except RouterError:
        if missing := app.callers.unreadable():
            return await secret_checks(app, missing)
        raise
    return await checks(app) if caller.role == "admin" else []


@endpoint
async def status(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/router/status`: the health of every target, as this instance sees it."""
    await app.callers.authenticate(request.headers)
    targets = [_view(view, app) for view in app.health.views().values()]
    return json_response(to_json({"targets": targets, "statistics": app.statistics.body()}), request_id)


@endpoint
async def decision(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/router/decisions/{id}`: why a request went where it went. Callers see their own, admins all."""
    caller = await app.callers.authenticate(request.headers)
    name = unquote(request.path_params["id"])
    here = app.decisions.get(name)
    found = decision_body(here) if here else await _archived(name, app)
    if found is None or (found["caller"] != caller.name and caller.role != "admin"):
        raise UnknownModel("No such decision is kept.", code="decision_not_found")
    return json_response(to_json(found), request_id)


@endpoint
async def decisions(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/router/decisions`: of all instances, newest first, as a list or (`format=jsonl`) a line each."""
    caller = await app.callers.authenticate(request.headers)
    given = {name: value for name, value in request.query_params.items() if value}
    wanted = validated(DecisionQuery.model_validate, given)
    if caller.role != "admin":
        wanted = wanted.model_copy(update={"caller": caller.name})
    listed, complete = await _listed(app, wanted)
    following = str(listed[-1]["id"]) if len(listed) == wanted.limit else None  # to be named as `after`
    if wanted.format == "jsonl":
        lines = b"".join(to_json(each) + b"\n" for each in listed)
        headers = {"x-router-next": following} if following else {}
        return json_response(lines, request_id, headers, media_type="application/x-ndjson")
    body = {"object": "list", "data": listed, "next": following, "complete": complete}
    return json_response(to_json(body), request_id)


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


async def _archived(name: str, app: App) -> Mapping[str, Any] | None:
    """A decision that another instance made, or that has left this one's memory. Raises a RouterError."""
    try:
        return await app.archive.find(name)
    except Exception as failure:  # whatever an adapter raises
        _log.warning("A decision cannot be read: %s", failure)
        error = RouterError("The store of decisions cannot be reached; try again.", retry_after=1.0)
        error.status = 503
        raise error from None


async def _listed(app: App, wanted: DecisionQuery) -> tuple[list[Mapping[str, Any]], bool]:
    """One page: what is stored, and what this instance has in memory. False: the store gave no answer."""
    until = None if math.isinf(wanted.until) else wanted.until
    page = await app.archive.page(Wanted(wanted.limit, wanted.caller, wanted.route, wanted.since, until, wanted.after))
    found = app.decisions.newest(caller=wanted.caller, route=wanted.route, since=wanted.since)
    after = place_of(wanted.after) if wanted.after else None
    fitting = (each for each in found if each.at <= wanted.until and (after is None or place_of(each.id) > after))
    together = {str(each["id"]): each for each in (*page.bodies, *await _bodies(list(islice(fitting, wanted.limit))))}
    return sorted(together.values(), key=lambda each: place_of(str(each["id"])))[: wanted.limit], page.complete


async def _bodies(found: list[Decision]) -> list[dict[str, Any]]:
    """The decisions as JSON; other requests get their turn meanwhile."""
    bodies = []
    for place, each in enumerate(found):
        if place % AT_ONCE == 0:
            await asyncio.sleep(0)
        bodies.append(decision_body(each))
    return bodies


def _admin(caller: Caller) -> Caller:
    if caller.role != "admin":
        raise Forbidden('This needs a caller with role = "admin" in the routes file.')
    return caller


def _view(view: BreakerView, app: App) -> dict[str, Any]:
    target = app.config.targets[view.target]
    return {**asdict(view), "provider": target.provider, "model": target.model}
