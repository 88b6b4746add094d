"""Every name that telemetry uses, in one place: what is renamed here is renamed everywhere.

`gen_ai.*` are OpenTelemetry's semantic conventions for generative AI
(https://github.com/open-telemetry/semantic-conventions-genai); `llm.*` and `router.*` are the router's own, because no
convention has names for routing and cost yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SCOPE = "llm-router"  # the instrumentation scope, and the service's name

# Attributes of spans and events, and dimensions of metrics.
METHOD, ROUTE, STATUS = "http.request.method", "http.route", "http.response.status_code"
ADDRESS, PORT, ERROR = "server.address", "server.port", "error.type"
OPERATION, PROVIDER, STREAM = "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.stream"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
MAX_TOKENS, TEMPERATURE, TOP_P = "gen_ai.request.max_tokens", "gen_ai.request.temperature", "gen_ai.request.top_p"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHE_READ, CACHE_WRITE = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_creation.input_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"
INPUT_MESSAGES, OUTPUT_MESSAGES = "gen_ai.input.messages", "gen_ai.output.messages"
REQUEST_ID, DECISION, CALLER = "router.request_id", "router.decision_id", "router.caller"
ROUTER_ROUTE, STRATEGY = "router.route", "router.strategy"
TASK, CONFIDENCE = "router.task", "router.task.confidence"
TARGET, ATTEMPT, ATTEMPTS, OUTCOME = "router.target", "router.attempt", "router.attempts", "router.outcome"
FALLBACKS, EXCLUDED, CACHED = "router.fallbacks", "router.excluded", "router.from_cache"
COST, SAVED, PRICES = "router.cost.micro_usd", "router.cost.saved_micro_usd", "router.cost.price_version"
OVERHEAD = "router.overhead_seconds"
ESTIMATED, DETAIL, SECRET, FROM = "router.usage.estimated", "router.detail", "router.secret", "router.fallback.from"
SECONDS, LOGGER = "router.seconds", "router.logger"

# Events.
DECIDED, FELL_BACK = "llm.routing.decision", "llm.fallback.used"
STREAM_STARTED, STREAM_COMPLETED = "llm.streaming.started", "llm.streaming.completed"
SECRET_REFRESHED = "llm.secret.refreshed"

# What health tells, by the kind that it gives it.
HEALTH_EVENTS: Mapping[str, str] = {
    "opened": "llm.circuit_breaker.opened",
    "half_open": "llm.circuit_breaker.half_open",
    "closed": "llm.circuit_breaker.closed",
    "parked": "llm.circuit_breaker.parked",
    "isolated": "llm.circuit_breaker.isolated",
    "forced_closed": "llm.circuit_breaker.forced_closed",
    "reset": "llm.circuit_breaker.reset",
    "degraded": "llm.store.degraded",
    "recovered": "llm.store.recovered",
    "set_aside": "llm.store.set_aside",
    "forbidden": "llm.store.forbidden",
}
BREAKER_STATES: Mapping[str, int] = {"closed": 0, "half_open": 1, "opened": 2, "isolated": 3, "forced_closed": 0}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it is made once. `buckets` are a histogram's upper bounds, in its unit."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    says: str
    buckets: tuple[float, ...] = ()


_OPERATION = tuple(0.01 * 2**power for power in range(14))  # 0.01 to 81.92 s, as the conventions say
_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)  # the same
_OWN = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)

TOKEN_USAGE = Metric(
    "gen_ai.client.token.usage",
    "histogram",
    "{token}",
    "Tokens of one call to a provider.",
    tuple(float(4**power) for power in range(14)),
)
CALL_SECONDS = Metric(
    "gen_ai.client.operation.duration", "histogram", "s", "One call to a provider, to its end.", _OPERATION
)
CALL_FIRST = Metric(
    "gen_ai.client.operation.time_to_first_chunk", "histogram", "s", "A provider's first words of a stream.", _TOKEN
)
CALL_PER_TOKEN = Metric(
    "gen_ai.client.operation.time_per_output_chunk", "histogram", "s", "A provider's pace after that.", _TOKEN
)
SERVED_SECONDS = Metric(
    "gen_ai.server.request.duration", "histogram", "s", "One request of a caller, to its end.", _OPERATION
)
SERVED_FIRST = Metric(
    "gen_ai.server.time_to_first_token", "histogram", "s", "A stream's first words, as a caller meets them.", _TOKEN
)
SERVED_PER_TOKEN = Metric(
    "gen_ai.server.time_per_output_token", "histogram", "s", "A stream's pace after its first words.", _TOKEN
)
LATENCY = Metric("llm.provider.latency", "histogram", "s", "One call to a target, also a failed one.", _OPERATION)
ERRORS = Metric("llm.provider.errors", "counter", "{error}", "Failed calls to a target.")
BREAKER = Metric("llm.circuit_breaker.state", "gauge", "{state}", "0 closed, 1 half open, 2 open, 3 isolated.")
STREAMED = Metric("llm.streaming.tokens", "counter", "{token}", "Tokens delivered in streams.")
COST_TOKENS = Metric("llm.cost.tokens", "counter", "{token}", "Tokens that were paid for.")
COST_USD = Metric("llm.cost.usd", "counter", "USD", "Money spent, where the price is known.")
SAVED_USD = Metric(
    "llm.cost.saved_usd", "counter", "USD", "What the most expensive target that is good enough would have cost more."
)
OWN_TIME = Metric("llm.router.overhead", "histogram", "s", "The router's own time in a request.", _OWN)
LOST = Metric("llm.telemetry.dropped", "counter", "{item}", "Telemetry that found no room or no backend.")

METRICS = (
    TOKEN_USAGE,
    CALL_SECONDS,
    CALL_FIRST,
    CALL_PER_TOKEN,
    SERVED_SECONDS,
    SERVED_FIRST,
    SERVED_PER_TOKEN,
    LATENCY,
    ERRORS,
    BREAKER,
    STREAMED,
    COST_TOKENS,
    COST_USD,
    SAVED_USD,
    OWN_TIME,
    LOST,
)
EVENTS = (DECIDED, FELL_BACK, STREAM_STARTED, STREAM_COMPLETED, SECRET_REFRESHED, *HEALTH_EVENTS.values())
ATTRIBUTES = (
    *(METHOD, ROUTE, STATUS, ADDRESS, PORT, ERROR, OPERATION, PROVIDER, STREAM, REQUEST_MODEL, RESPONSE_MODEL),
    *(MAX_TOKENS, TEMPERATURE, TOP_P, FIRST_CHUNK, INPUT_TOKENS, OUTPUT_TOKENS, CACHE_READ, CACHE_WRITE, REASONING),
    *(TOKEN_TYPE, INPUT_MESSAGES, OUTPUT_MESSAGES, REQUEST_ID, DECISION, CALLER, ROUTER_ROUTE, STRATEGY, TASK),
    *(CONFIDENCE, TARGET, ATTEMPT, ATTEMPTS, OUTCOME, FALLBACKS, EXCLUDED, CACHED, COST, SAVED, PRICES, OVERHEAD),
    *(ESTIMATED, DETAIL, SECRET, FROM, SECONDS, LOGGER),
)
EMITTED = frozenset((*EVENTS, *ATTRIBUTES, *(metric.name for metric in METRICS)))

# The endpoints that telemetry follows, with the operation that each performs.
OPERATIONS: Mapping[str, str] = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}

FOLLOWED = frozenset((*OPERATIONS, "/v1/messages/count_tokens", "/v1/router/explain"))

# What the conventions call a provider, by its type in the routes file.
PROVIDERS: Mapping[str, str] = {
    "openai": "openai",
    "azure_openai": "azure.ai.openai",
    "anthropic": "anthropic",
    "ollama": "ollama",
}
