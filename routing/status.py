"""What the router says about itself, and the orders it takes: health for every caller, breakers for admins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from routing.api import body_of, endpoint, json_response
from routing.breaker_state import MANUAL_LONGEST
from routing.errors import Forbidden, UnknownModel
from routing.health import BreakerView
from routing.types import Caller
from routing.wire import Wire, parse_object, validated
from routing.wiring import App


class BreakerOrder(Wire):
    """`POST /v1/router/breakers/{target}`: what an admin wants of a breaker, and why."""

    action: Literal["isolate", "close", "reset"]
    reason: str = Field(min_length=1, max_length=200)
    seconds: Annotated[float, Field(gt=0, le=MANUAL_LONGEST, strict=False)] | None = None


@endpoint
async def status(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/router/status`: the health of every target, as this instance sees it."""
    await app.callers.authenticate(request.headers)
    targets = [_view(view, app) for view in app.health.views().values()]
    return json_response(to_json({"targets": targets}), request_id)


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


def _admin(caller: Caller) -> Caller:
    if caller.role != "admin":
        raise Forbidden('This needs a caller with role = "admin" in the routes file.')
    return caller


def _view(view: BreakerView, app: App) -> dict[str, Any]:
    target = app.config.targets[view.target]
    return {**asdict(view), "provider": target.provider, "model": target.model}
