"""The router's own log lines as JSON, one object each, with the id of the request that they are about.

They leave by the handlers that the host has set: in Azure Functions to the host, on a laptop to the terminal.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from routing import trace
from routing.telemetry import Line

OURS = "routing"  # the logger above all of ours
_NOT_OURS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says; what the caller gave as `extra` stands beside it."""
    exchange = trace.current.get()
    told: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname,
        "logger": record.name,
        "message": record.getMessage(),
    }
    if exchange is not None:
        told |= {"request_id": exchange.id, "trace_id": exchange.trace.id, "span_id": exchange.trace.span}
    if record.exc_info:
        told["exception"] = logging.Formatter().formatException(record.exc_info)
    return told | {name: value for name, value in vars(record).items() if name not in _NOT_OURS}


class JsonLines(logging.Handler):
    """Hands each of our records on to the host's handlers as JSON, and to `tell` where that is wanted."""

    def __init__(self, tell: Callable[[Line], None] | None = None) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        told = fields(record)
        if self._tell is not None and record.levelno >= logging.INFO:
            exchange = trace.current.get()
            about = (exchange.id, exchange.trace) if exchange else (None, None)
            self._tell(Line(int(record.created * 1e9), record.levelname, record.name, told["message"], *about))
        written = copy.copy(record)
        written.msg, written.args, written.exc_info, written.exc_text = json.dumps(told, default=str), (), None, None
        logging.getLogger().handle(written)


def install(tell: Callable[[Line], None] | None = None) -> Callable[[], None]:
    """From here on our lines are JSON. Returns what undoes it."""
    logger, handler = logging.getLogger(OURS), JsonLines(tell)
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False

    def remove() -> None:
        logger.removeHandler(handler)
        logger.propagate = before

    return remove
