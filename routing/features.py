"""What of a request a plan depends on, without a word of its text: a decision that was recorded leads back to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from routing import tokens
from routing.requests import CompletionRequest, EmbeddingRequest
from routing.routes_file import MINIMUM_QUALITY, RouteSettings
from routing.types import Facts, Feature, TaskKind
from routing.wire import Asking, Hints

EXPECTED_OUTPUT: Mapping[TaskKind, int] = {
    "general": 300,
    "planning": 700,
    "code_generation": 700,
    "analysis": 500,
    "intent_detection": 30,
    "validation": 120,
    "summarization": 250,
    "translation": 300,
    "classification": 20,
    "long_form_generation": 1_800,
}  # tokens; rough, but enough to weigh prices of input against prices of output

NO_HINTS = Hints()
LARGEST_COST = 1e9  # USD; a ceiling above it is none, and stays a number that can be reckoned with


@dataclass(frozen=True, slots=True)
class Features:
    """A request as a plan sees it. From `strategy` on they are the caller's own wishes; None leaves it to the route."""

    input_tokens: int
    output_limit: int | None = None
    answers: int = 1
    needs: frozenset[Feature] = frozenset()
    largest_input: int | None = None  # tokens of the largest of several inputs
    strategy: str | None = None
    max_cost: float | None = None  # micro-USD for the whole request in the worst case
    max_latency: float | None = None  # seconds to the first token
    min_quality: float | None = None
    priority: int | None = None
    only: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AskedFacts(Facts):
    """The facts, with those wishes that no strategy judges by: another configuration can be asked the same again."""

    answers: int = 1
    strategy: str | None = None
    priority: int | None = None


def features_of(request: Asking) -> Features:
    """The features of a request as it came in."""
    hints = request.router or NO_HINTS
    inputs = request.inputs if isinstance(request, EmbeddingRequest | CompletionRequest) else None
    counts = [tokens.of_request(request.fields)] if inputs is None else tokens.of_inputs(inputs)
    return Features(
        input_tokens=sum(counts),
        output_limit=request.output_limit,
        answers=0 if isinstance(request, EmbeddingRequest) else (request.n or 1) * len(counts),
        needs=request.needs(),
        largest_input=None if inputs is None else max(counts),
        strategy=hints.strategy,
        max_cost=None if hints.max_cost_usd is None else min(hints.max_cost_usd, LARGEST_COST) * 1e6,
        max_latency=None if hints.max_latency_ms is None else hints.max_latency_ms / 1e3,
        min_quality=hints.min_quality,
        priority=hints.priority,
        only=frozenset(hints.only) if hints.only else None,
        deny=frozenset(hints.deny or ()),
    )


def expected_output(features: Features, kind: TaskKind) -> int:
    """Tokens of output, over all the answers asked for."""
    usual = features.input_tokens if kind == "translation" else EXPECTED_OUTPUT[kind]
    return min(usual, features.output_limit or usual) * features.answers


def minimum_quality(features: Features, settings: RouteSettings, kind: TaskKind) -> float:
    """What the cheapest target has to reach, 0..1: the request's own minimum, else the task's, moved by its wishes."""
    if features.min_quality is not None:
        return features.min_quality
    own, wishes = settings.minimum_quality, settings.wishes
    minimum = own.get(kind, own.get("default", MINIMUM_QUALITY.get(kind, MINIMUM_QUALITY["default"])))
    if features.strategy == "cost":  # asked for in the request itself: saving matters more to this caller
        minimum = min(minimum, max(wishes.saving_floor, minimum - wishes.saving_lowers))
    if features.priority is not None and features.priority >= wishes.high_priority:
        minimum = max(minimum, wishes.high_priority_quality)
    return minimum
