"""`GET /v1/router/usage`: who used what and what it cost, as JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from routing.answers import json_response
from routing.api import endpoint
from routing.bookkeeping import days_between
from routing.errors import Forbidden, InvalidRequest
from routing.limits import day_of
from routing.types import Caller
from routing.usage import Counts, Line
from routing.wire import validated
from routing.wiring import App

MOST_DAYS = 92
By = Literal["caller", "target", "task", "route", "day"]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run


def _listed(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class UsageQuery(BaseModel):
    """What to add up. Days are those of UTC, and both ends are part of it; left out they are today."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    first: Day | None = Field(default=None, alias="from")
    last: Day | None = Field(default=None, alias="to")
    by: Annotated[list[By], BeforeValidator(_listed), Field(min_length=1)] = ["caller"]
    caller: str | None = None
    format: Literal["json", "csv"] = "json"

    def days(self, today: str) -> list[str]:
        """Every day to look at. Raises InvalidRequest."""
        last = self.last or max(today, self.first or "")
        try:
            days = days_between(self.first or last, last)
        except ValueError:
            raise InvalidRequest("from and to must be days such as 2026-01-31.", param="from") from None
        if not 1 <= len(days) <= MOST_DAYS:
            raise InvalidRequest(f"from must not be after to, nor {MOST_DAYS} days or more before it.", param="from")
        return days


@endpoint
async def usage(app: App, request: Request, request_id: str) -> Response:
    """`GET /v1/router/usage`: callers see their own, admins all. `complete` says whether every instance is in it."""
    caller = await app.callers.authenticate(request.headers)
    given = request.query_params
    listed = {"by": ",".join(given.getlist("by"))} if "by" in given else {}  # `by` may be said more than once
    wanted = validated(UsageQuery.model_validate, {**given, **listed})
    days = wanted.days(day_of(app.clock()))
    lines, complete = await app.bookkeeping.usage(days)
    rows = summed(_visible(lines, caller, wanted.caller), wanted.by)
    if wanted.format == "csv":
        headers = {"x-router-complete": "true" if complete else "false"}
        return json_response(as_csv(rows, wanted.by), request_id, headers, media_type="text/csv")
    about = {"from": days[0], "to": days[-1], "by": wanted.by, "complete": complete}
    return json_response(to_json({"object": "list", **about, "data": rows}), request_id)


def summed(lines: Iterable[Line], by: Sequence[By]) -> list[dict[str, Any]]:
    """The lines added up by these of their fields, in their order."""
    sums: dict[tuple[str, ...], Counts] = {}
    for line in lines:
        fields = {**line.of._asdict(), "day": line.day}
        key = tuple(fields[name] for name in by)
        sums[key] = sums.get(key, Counts()) + line.counts
    return [{**dict(zip(by, key, strict=True)), **_shown(sums[key])} for key in sorted(sums)]


def as_csv(rows: Sequence[Mapping[str, Any]], by: Sequence[By]) -> bytes:
    """The rows under a line of names; no cell is a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*by, *_shown(Counts())])
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _shown(counts: Counts) -> dict[str, Any]:
    return {
        "requests": counts.requests,
        "failed": counts.failed,
        "cached": counts.cached,
        "input_tokens": counts.input_tokens,
        "output_tokens": counts.output_tokens,
        "usd": counts.micro_usd / 1e6,
        "unpriced": counts.unpriced,
        "saved_usd": counts.saved_micro_usd / 1e6,
    }


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _visible(lines: Iterable[Line], caller: Caller, wanted: str | None) -> Iterable[Line]:
    if caller.role != "admin":
        if wanted not in (None, caller.name):
            raise Forbidden('The usage of others is for callers with role = "admin".', param="caller")
        wanted = caller.name
    return (line for line in lines if wanted in (None, line.of.caller))
