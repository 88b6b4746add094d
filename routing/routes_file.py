"""The tables of the routes file, as its author writes them. The settings of a part live beside the part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from routing.archive import DecisionSettings
from routing.breaker_state import BreakerSettings
from routing.entra import EntraSettings
from routing.keeper import HealthSettings
from routing.ledger import LedgerSettings
from routing.limits import BudgetSettings
from routing.providers.anthropic import AnthropicSettings
from routing.providers.azure_openai import AzureOpenAISettings
from routing.providers.ollama import OllamaSettings
from routing.providers.openai import OpenAISettings
from routing.retries import RetrySettings
from routing.secrets import SecretSettings
from routing.settings import Name, SecretReference, Settings
from routing.tasks import DEFAULT_MIN
from routing.telemetry import TelemetrySettings
from routing.types import Feature, Role, TaskKind

StrategyName = Annotated[str, Field(pattern=r"^(task|cost|speed|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$")]
AnyProvider = Annotated[
    OpenAISettings | AzureOpenAISettings | AnthropicSettings | OllamaSettings, Field(discriminator="type")
]
Share = Annotated[float, Field(ge=0, le=1)]
MINIMUM_QUALITY: Mapping[Literal[TaskKind, "default"], float] = {
    "planning": 0.9,
    "analysis": 0.9,
    "intent_detection": 0.9,
    "long_form_generation": 0.9,
    "default": 0.7,
}
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceSettings(Settings):
    """USD per million tokens."""

    input: Usd
    output: Usd
    cached_input: Usd | None = None
    cache_write: Usd | None = None
    reasoning: Usd | None = None


class TargetSettings(Settings):
    """`[targets.NAME]`: one model at one provider."""

    provider: str
    model: str = Field(min_length=1)
    enabled: bool = True  # false: as if it were not in the file, while the lists that name it may stay as they are
    context: int | None = Field(default=None, ge=1)
    max_output: int | None = Field(default=None, ge=1)
    supports: list[Feature] = ["tools", "json_schema"]
    price: PriceSettings | None = None
    quality: dict[Literal[TaskKind, "default"], Share] = {}
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    breaker: BreakerSettings | None = None  # left out: the file's own [breaker]
    requests_per_minute: int | None = Field(default=None, ge=1)  # of all instances together, as are tokens
    tokens_per_minute: int | None = Field(default=None, ge=1)
    embedding_space: Name | None = None  # targets with the same make the same vectors: only they stand in for another


class FallbackSettings(Settings):
    """When the next target may be asked although the request itself was refused."""

    on_content_refused: bool = False


class DetectorSettings(Settings):
    """`detector = { ask = "llama" }`: which target to ask about a request whose task is uncertain."""

    ask: str
    timeout_ms: int = Field(default=400, ge=10, le=10_000)


class WishSettings(Settings):
    """`wishes = { ... }`: what the wishes of a request do to the minimum quality of strategy cost."""

    high_priority: int = Field(default=8, ge=1, le=10)  # from this `router.priority` on
    high_priority_quality: Share = 0.8  # the minimum is at least this
    saving_lowers: Share = 0.1  # by `router.strategy = "cost"`
    saving_floor: Share = 0.5  # but not below this


class CacheSettings(Settings):
    """`cache = { seconds = 300 }`: answers that equal requests of the same group get again."""

    seconds: float = Field(gt=0, le=7 * 86_400)
    max_entries: int = Field(default=1_000, ge=1, le=100_000)  # in each instance
    tools: bool = False  # also requests with tools
    max_temperature: float = Field(default=0.0, ge=0, le=2)  # a request that wants more of it wants a new answer
    shared: bool = False  # also in the table, sealed, where every instance finds them
    shared_timeout_ms: int = Field(default=100, ge=1, le=2_000)  # that a request waits for the table


class RouteOverride(Settings):
    """`[routes.NAME.groups.GROUP]`, `[routes.NAME.callers.CALLER]`: what is different for them; the rest stays."""

    strategy: StrategyName | None = None
    targets: list[str] | None = Field(default=None, min_length=1)
    tasks: dict[TaskKind, list[str]] | None = None


class RouteSettings(Settings):
    """`[routes.NAME]`: what a client writes as `model`. Times in seconds."""

    strategy: StrategyName = "task"
    targets: list[str] = Field(min_length=1)
    tasks: dict[TaskKind, list[str]] = {}
    groups: dict[Name, RouteOverride] = {}
    callers: dict[Name, RouteOverride] = {}
    min_task_confidence: Share = DEFAULT_MIN  # below it a task is general
    detector: DetectorSettings | None = None
    minimum_quality: dict[Literal[TaskKind, "default"], Share] = {}  # for strategy cost; left out: MINIMUM_QUALITY
    wishes: WishSettings = WishSettings()
    exploration: Share = 0.05  # strategy speed: share of the requests that try another target than the fastest
    deadline_seconds: float = Field(default=200.0, gt=0, lt=220)  # all attempts; the load balancer hangs up at 230 s
    attempt_seconds: float = Field(default=100.0, gt=0)  # one attempt, up to the reply or a stream's first token
    first_token_seconds: float = Field(default=60.0, gt=0)
    idle_seconds: float = Field(default=60.0, gt=0)  # between two pieces of a stream
    stream_seconds: float = Field(default=1_500.0, gt=0, lt=1_800)  # a whole stream; the host stops us at 1,800 s
    retry: RetrySettings = RetrySettings()
    fallback: FallbackSettings = FallbackSettings()
    cache: CacheSettings | None = None
    coalesce: bool = False  # equal requests at the same time are answered by one call


class CallerSettings(Settings):
    """`[callers.NAME]`: who may ask, and for what."""

    key: SecretReference | None = None  # a caller that only [entra] leads to has none
    keys: list[SecretReference] = []  # several are good at the same time, so that one can be rotated
    role: Role = "user"
    groups: list[Name] = []
    routes: list[str] | None = None  # and targets by their own names; left out: all
    targets: list[str] | None = Field(default=None, min_length=1)  # that may answer; left out: all

    requests_per_minute: int | None = Field(default=None, ge=1)  # these hold for all instances together
    tokens_per_minute: int | None = Field(default=None, ge=1)
    max_streams: int | None = Field(default=None, ge=1)
    budget: BudgetSettings | None = None

    @classmethod
    def contradiction(cls, given: Mapping[str, Any]) -> str | None:
        return "has both key and keys; keep keys" if given.get("key") is not None and given.get("keys") else None

    def references(self) -> list[tuple[str, str]]:
        """Its keys, each with the place where it stands."""
        if self.key is not None:
            return [("key", self.key)]
        return [(f"keys[{place}]", key) for place, key in enumerate(self.keys)]


class GroupSettings(Settings):
    """`[groups.NAME]`: what the callers of a group may spend together."""

    budget: BudgetSettings | None = None


class ServerSettings(Settings):
    """`[server]`."""

    max_body_bytes: int = Field(default=20 * 1024 * 1024, ge=1_024, le=100 * 1024 * 1024)
    keepalive_seconds: float = Field(default=15.0, gt=0, le=60)  # of silence before a comment is sent to the caller


class RoutesFile(Settings):
    """The whole file."""

    server: ServerSettings = ServerSettings()
    breaker: BreakerSettings = BreakerSettings()
    health: HealthSettings = HealthSettings()
    secrets: SecretSettings = SecretSettings()
    ledger: LedgerSettings = LedgerSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    decisions: DecisionSettings = DecisionSettings()
    entra: EntraSettings | None = None
    providers: dict[Name, AnyProvider] = {}
    targets: dict[Name, TargetSettings] = {}
    routes: dict[Name, RouteSettings] = {}
    aliases: dict[str, str] = {}
    callers: dict[Name, CallerSettings] = {}
    groups: dict[Name, GroupSettings] = {}
