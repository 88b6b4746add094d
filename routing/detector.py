"""For requests whose task is uncertain: one short question to a cheap target, which can never fail a request."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256

from pydantic_core import from_json, to_json

from routing.config import Route
from routing.errors import ProviderError
from routing.failover import Gate
from routing.planner import text_of
from routing.providers.base import Provider, Reply
from routing.types import TASK_KINDS, Outcome, Refused, Target, Task, TaskKind
from routing.wire import ChatRequest

_log = logging.getLogger(__name__)
REMEMBERED = 1_024  # answers
REST_SECONDS = 10.0  # after a question that was not answered: else every uncertain request would wait in vain
LONGEST = 2_000  # characters of the request that are shown, from either end
_QUESTION = f"Which task is this request for? Answer with one of these words and nothing else: {', '.join(TASK_KINDS)}."


class Detector:
    """Asks, and remembers what it was told. A target that did not tell is left alone for a while."""

    def __init__(self, targets: Mapping[str, Target], providers: Mapping[str, Provider], gate: Gate) -> None:
        self._targets, self._providers, self._gate = targets, providers, gate
        self._told: OrderedDict[bytes, TaskKind | None] = OrderedDict()
        self._resting_until: dict[str, float] = {}

    async def improve(self, task: Task, request: ChatRequest, route: Route) -> Task:
        """The task, or a better one for a task that is uncertain on a route that asks."""
        settings = route.settings.detector
        if settings is None or len(route.targets) == 1 or task.confidence >= route.settings.min_task_confidence:
            return task
        shown = _shown(request)
        key = sha256(f"{settings.ask}\n{shown}".encode("utf-8", "surrogatepass")).digest()
        if key not in self._told:
            answered, kind = await self._ask(self._targets[settings.ask], shown, settings.timeout_ms / 1000)
            if not answered:
                return task
            self._told[key] = kind
            if len(self._told) > REMEMBERED:
                self._told.popitem(last=False)
        told = self._told[key]
        return Task(told, task.confidence, f"{settings.ask} was asked; {task.reason}") if told else task

    async def _ask(self, target: Target, shown: str, seconds: float) -> tuple[bool, TaskKind | None]:
        """Whether the target answered, and the kind it named."""
        now = asyncio.get_running_loop().time()
        if now < self._resting_until.get(target.name, 0.0):
            return False, None
        leave = self._gate.admit(target.name)
        if isinstance(leave, Refused):
            return False, None
        outcome, name = Outcome.NEUTRAL, None
        try:
            async with asyncio.timeout(seconds):
                reply = await self._providers[target.provider].chat(target, _question(shown))
            outcome = Outcome.OK
            return True, _named(reply)
        except ProviderError as error:
            outcome, name = error.policy.outcome, type(error).__name__
        except TimeoutError:
            name = "TimeoutError"  # our own patience is short: that says nothing about the target
        except Exception as error:  # a request can do without
            _log.exception("The target %s could not be asked for a task", target.name)
            name = type(error).__name__
        finally:
            self._gate.record(leave, outcome, error=name)
        self._resting_until[target.name] = now + REST_SECONDS
        return False, None


def _shown(request: ChatRequest) -> str:
    text = "\n\n".join(f"{message.role}: {text_of(message)}" for message in request.messages)
    return text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]}\n[...]\n{text[-LONGEST:]}"


def _question(shown: str) -> ChatRequest:
    messages = [
        {"role": "system", "content": _QUESTION},
        {"role": "user", "content": f"<request>\n{shown}\n</request>"},
    ]
    body = {"model": "detector", "messages": messages, "max_tokens": 16, "temperature": 0}
    return ChatRequest.parse(to_json(body, inf_nan_mode="null"))


def _named(reply: Reply) -> TaskKind | None:
    """The kind that the answer names first."""
    try:
        content = str(from_json(reply.body)["choices"][0]["message"]["content"]).lower()
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    found = [(content.find(kind), kind) for kind in TASK_KINDS if kind in content]
    return min(found)[1] if found else None
