"""What a request would cost: estimates that hold at worst, and shares of tokens learnt from what was used."""

from __future__ import annotations

import pytest

from routing import config, pricing
from routing.features import Features
from routing.quotes import Quotes, SeenUsage
from routing.types import Estimate, Shares, Usage

ROUTES = """
[providers.openai]
type = "openai"
[providers.gemini]
type = "openai"
base_url = "https://generativelanguage.googleapis.com/v1beta/openai"

[targets.plain]
provider = "openai"
model = "m"
price = { input = 2, output = 10 }

[targets.cached]
provider = "openai"
model = "m"
price = { input = 2, cached_input = 0.2, cache_write = 3, output = 10, reasoning = 20 }

[targets.unpriced]
provider = "openai"
model = "nobody-knows"

[targets.tiers]
provider = "gemini"
model = "gemini-2.5-pro"
"""
LOADED = config.parse(ROUTES, {})


def quoted(name: str, features: Features, output_tokens: int = 300, **shares: Shares) -> Estimate | None:
    quotes = Quotes(LOADED, pricing.bundled)
    return quotes.estimates([LOADED.targets[name]], features, output_tokens, shares).get(name)


def test_an_estimate_is_what_is_expected_and_what_it_may_cost_at_worst():
    assert quoted("plain", Features(1_000)) == Estimate(1_000 * 2 + 300 * 10, 1_200 * 2, 10)
    assert quoted("cached", Features(1_000)) == Estimate(1_000 * 2 + 300 * 10, 1_200 * 3, 20)
    assert quoted("unpriced", Features(1_000)) is None


def test_every_answer_that_is_asked_for_counts_at_worst():
    found = quoted("plain", Features(1_000, answers=3))
    assert found is not None
    assert found.per_output_token == 30


def test_at_worst_the_request_is_in_the_dearer_tier_already():
    rates = Quotes(LOADED, pricing.bundled).rates(LOADED.targets["tiers"])
    assert rates is not None
    ((tokens, dearer),) = rates.above
    found = quoted("tiers", Features(tokens - 10))
    assert found is not None
    assert found.expected == (tokens - 10) * rates.input + 300 * rates.output
    assert found.per_output_token == dearer.output > rates.output
    assert found.input >= (tokens - 10) * 1.2 * dearer.input


def test_shares_make_the_expected_cost_and_leave_the_worst_case():
    found = quoted("cached", Features(1_000), cached=Shares(cached=0.5, reasoning=0.5))
    assert found is not None
    assert found.expected == pytest.approx(500 * 2 + 500 * 0.2 + 150 * 10 + 150 * 20)
    assert (found.input, found.per_output_token) == (1_200 * 3, 20)


# --- what is learnt


def learnt(*used: Usage) -> Shares | None:
    seen = SeenUsage()
    for usage in used:
        seen.learn("t", usage)
    return seen.shares("t")


@pytest.mark.parametrize(
    ("used", "shares"),
    [
        ([], None),
        ([Usage(1_000, 100)], None),
        ([Usage(1_000, 100, cached=500)], Shares(0.5, 0.0)),
        ([Usage(1_000, 100, reasoning=75)], Shares(0.0, 0.75)),
        ([Usage(1_000, 100, cached=512, reasoning=76)], Shares(0.5, 0.75)),
        ([Usage(1_000, 100, cached=9_000, reasoning=9_000)], Shares(1.0, 1.0)),
        ([Usage(0, 0)], None),
        ([Usage(1_000, 100, cached=500, estimated=True)], None),
        ([Usage(9_000, 0), Usage(1_000, 0, cached=1_000)], Shares(0.1, 0.0)),
    ],
    ids=[
        "nothing seen",
        "nothing priced apart",
        "half from the cache",
        "thoughts",
        "in twentieths",
        "no more than all",
        "no tokens",
        "an estimate",
        "by tokens, not by answers",
    ],
)
def test_shares_are_of_the_tokens_that_were_used(used, shares):
    assert learnt(*used) == shares


def test_what_was_seen_long_ago_fades():
    cold = [Usage(1_000, 100)] * 40
    assert learnt(Usage(1_000, 100, cached=1_000)) == Shares(1.0, 0.0)
    assert learnt(Usage(1_000, 100, cached=1_000), *cold) is None
    assert learnt(*cold, *[Usage(1_000, 100, cached=1_000)] * 40) == Shares(1.0, 0.0)


def test_each_target_has_shares_of_its_own():
    seen = SeenUsage()
    seen.learn("t", Usage(100, 10, cached=50))
    assert (seen.shares("t"), seen.shares("u")) == (Shares(0.5), None)
