"""What a request would cost at a target: its rates by the routes file or the table, and what its tokens usually are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol
from urllib.parse import urlsplit

from routing import pricing
from routing.config import Config
from routing.features import Features
from routing.pricing import Prices, Rates
from routing.types import Estimate, Shares, Target, Usage

ESTIMATE_ERROR = 1.2  # input tokens may be so many times the estimate; a ceiling has to hold all the same
FADES = 0.9  # what was seen before counts so much less with each answer
STEPS = 20  # shares are told in twentieths: a plan does not change with every answer


class Usual(Protocol):
    """What is known of the tokens that targets used before."""

    def shares(self, target: str) -> Shares | None: ...

    def learn(self, target: str, usage: Usage) -> None: ...


@dataclass(slots=True)
class _Sums:
    """Tokens of the answers so far, the old ones faded."""

    input: float = 0.0
    cached: float = 0.0
    output: float = 0.0
    reasoning: float = 0.0

    def add(self, usage: Usage) -> None:
        self.input = self.input * FADES + usage.input
        self.cached = self.cached * FADES + min(usage.cached, usage.input)
        self.output = self.output * FADES + usage.output
        self.reasoning = self.reasoning * FADES + min(usage.reasoning, usage.output)

    def shares(self) -> Shares | None:
        found = Shares(_share(self.cached, self.input), _share(self.reasoning, self.output))
        return found if found.cached or found.reasoning else None


class SeenUsage:
    """The tokens that this instance saw targets use lately."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}
        self._shares: dict[str, Shares] = {}

    def shares(self, target: str) -> Shares | None:
        """None until something of it was priced apart."""
        return self._shares.get(target)

    def learn(self, target: str, usage: Usage) -> None:
        """Takes what one answer used; an estimate says nothing about shares."""
        if usage.estimated:
            return
        sums = self._sums.setdefault(target, _Sums())
        sums.add(usage)
        if found := sums.shares():
            self._shares[target] = found
        else:
            self._shares.pop(target, None)


class Quotes:
    """The rates of targets, found once, and estimates made with them."""

    def __init__(self, config: Config, prices: Callable[[], Prices]) -> None:
        self._config, self._prices = config, prices
        self._rates: dict[str, Rates | None] = {}
        self.learnt = 0  # how many prices were found out from replies: estimates made before are of no use any more

    @property
    def prices(self) -> Prices:
        """The table, read when it is first needed."""
        return self._prices()

    def rates(self, target: Target, served: str | None = None) -> Rates | None:
        """What the target costs; `served` is the model that the reply names."""
        if served is not None:
            found = pricing.price_of(target, self.prices, self._vendor(target), served)
            if found and self._rates.get(target.name) is None:
                self._rates[target.name] = found  # a deployment may be called anything: now its price is known
                self.learnt += 1
            return found
        if target.name not in self._rates:
            self._rates[target.name] = pricing.price_of(target, self.prices, self._vendor(target))
        return self._rates[target.name]

    def estimates(
        self, targets: Sequence[Target], features: Features, output_tokens: int, shares: Mapping[str, Shares]
    ) -> dict[str, Estimate]:
        """Micro-USD for the request at each of the targets whose price is known."""
        known, sent, answers = dict[str, Estimate](), features.input_tokens, features.answers
        most = ceil(sent * ESTIMATE_ERROR)
        for target in targets:
            rates = self._rates[target.name] if target.name in self._rates else self.rates(target)
            if rates:
                worst_sent, worst_written = pricing.worst_rates(rates, most)
                usual = pricing.expected(rates, sent, output_tokens, shares.get(target.name))
                known[target.name] = Estimate(usual, most * worst_sent, worst_written * answers)
        return known

    def _vendor(self, target: Target) -> str | None:
        provider = self._config.file.providers[target.provider]
        address = getattr(provider, "base_url", None) or getattr(provider, "endpoint", "")
        return self.prices.vendor(provider.type, urlsplit(str(address)).hostname or "")


def _share(part: float, whole: float) -> float:
    return round(STEPS * part / whole) / STEPS if whole else 0.0
