"""How a page comes to hear notices: `POST /v1/router/notices/negotiate`, which SignalR's own clients ask for."""

from __future__ import annotations

import logging

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from routing.answers import json_response
from routing.api import endpoint
from routing.errors import RouterError
from routing.fresh import SecretUnavailable
from routing.wiring import App

_log = logging.getLogger(__name__)


@endpoint
async def negotiate(app: App, request: Request, request_id: str) -> Response:
    """Where to connect, and a token for it that is the caller's own."""
    caller = await app.callers.authenticate(request.headers)
    if app.notices.hub is None:
        raise RouterError("This router has no SignalR service to connect to.", status=404, code="no_notices")
    try:
        return json_response(to_json(await app.notices.hub.client(caller.name)), request_id)
    except (RouterError, SecretUnavailable) as error:
        _log.warning("Nobody can connect to notices: %s", error)
        raise RouterError(
            "Notices cannot be had just now.", status=503, code="notices_unavailable", retry_after=2.0
        ) from None
