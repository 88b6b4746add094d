import copy
import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.pricing import PriceTableError, Rates, bundled, cost, expected, parse, price_of, worst_rates
from routing.types import Cost, Price, Shares, Target, Usage

TABLE: dict[str, Any] = {
    "schema": 1,
    "version": "2026-01-31",
    "unit": "USD per million tokens",
    "vendors": {
        "openai": {
            "kinds": ["openai"],
            "hosts": ["api.openai.com"],
            "source": "https://prices.example/openai",
            "checked": "2026-01-31",
            "models": {
                "small": {"input": 0.25, "output": 2.0, "cached_input": 0.025, "aliases": ["small-latest"]},
                "small-2024-05-13": {"input": 5.0, "output": 15.0},
                "thinker": {"input": 1.0, "output": 4.0, "cache_write": 1.25, "reasoning": 6.0},
                "long": {
                    "input": 1.0,
                    "output": 10.0,
                    "batch": {"input": 0.5, "output": 5.0},
                    "above": [
                        {"tokens": 1000, "input": 2.0, "output": 15.0},
                        {"tokens": 2000, "input": 4.0, "output": 20.0},
                    ],
                },
            },
        },
        "host": {
            "kinds": ["openai"],
            "hosts": ["api.host.example"],
            "source": "https://prices.example/host",
            "checked": "2026-01-30",
            "models": {"Org/Llama-70B": {"input": 0.9, "output": 0.9}},
        },
        "azure_openai": {
            "kinds": ["azure_openai"],
            "source": "https://prices.example/azure",
            "checked": "2026-01-30",
            "models": {"small": {"input": 0.3, "output": 2.4}},
        },
    },
}
PRICES = parse(json.dumps(TABLE))
VERSION = "2026-01-31"


def rates(model, vendor="openai"):
    found = PRICES.rates(vendor, model)
    assert found is not None
    return found


def target(model, price=None):
    return Target("one", "provider", model, price=price)


@pytest.mark.parametrize(
    ("model", "usage", "micro_usd"),
    [
        pytest.param("small", Usage(input=1000, output=100), 450, id="input and output"),
        pytest.param("small", Usage(input=1000, output=100, cached=1000), 225, id="all of the input from the cache"),
        pytest.param("small", Usage(input=2), 1, id="half is rounded up"),
        pytest.param("small", Usage(input=1), 0, id="a quarter is rounded down"),
        pytest.param("small", Usage(input=2, output=0, cached=2), 0, id="a twentieth is rounded down"),
        pytest.param("thinker", Usage(input=0, output=100, reasoning=40), 60 * 4 + 40 * 6, id="reasoning priced apart"),
        pytest.param("small", Usage(input=0, output=100, reasoning=40), 200, id="reasoning priced as output"),
        pytest.param("thinker", Usage(input=100, cached=50), 100, id="cached input without a price of its own"),
        pytest.param("long", Usage(input=1000, output=1), 1010, id="at the tier's edge"),
        pytest.param("long", Usage(input=1001, output=1), 2017, id="above it, all of it"),
        pytest.param("long", Usage(input=2001, output=1, cached=2001), 8024, id="above the next one"),
        pytest.param("small", Usage(), 0, id="nothing"),
        pytest.param("small", Usage(input=10, cached=99, output=1, reasoning=9), 2, id="counts that contradict"),
    ],
)
def test_what_was_used_is_priced_in_whole_micro_usd(model, usage, micro_usd):
    assert cost(usage, rates(model), VERSION) == Cost(micro_usd, VERSION)


def test_rounding_happens_once_at_the_end():
    quarter = Rates(input=0.25, output=0.25, cached_input=0.25)
    assert cost(Usage(input=2, output=1, cached=1), quarter, VERSION).micro_usd == 1  # three quarters, not 0 + 0 + 0


def test_a_price_is_taken_as_it_is_written():
    """0.075 is a little less in binary: 20 tokens would make 1.4999."""
    assert cost(Usage(input=20), Rates(input=0.075, output=0.0), VERSION).micro_usd == 2
    assert cost(Usage(input=10**15), Rates(input=0.1, output=0.0), VERSION).micro_usd == 10**14


def test_input_written_to_the_cache_has_its_own_price():
    assert cost(Usage(input=100, cache_write=80), rates("thinker"), VERSION).micro_usd == 20 + 100
    assert cost(Usage(input=100, cache_write=80), rates("small"), VERSION).micro_usd == 25


def test_a_batch_is_priced_by_its_own_rates():
    assert cost(Usage(input=100, output=10), rates("long").batch, VERSION).micro_usd == 100


def test_an_unknown_price_is_never_zero_and_names_the_table_that_lacks_it():
    assert cost(Usage(input=1000), None, PRICES.version) == Cost(None, VERSION)


def test_prices_of_the_routes_file_come_first_and_name_themselves():
    own = target("small", Price(input=1.0, output=2.0, cached_input=0.1, reasoning=3.0))
    found = price_of(own, PRICES, "openai", served="thinker")
    assert found == Rates(1.0, 2.0, cached_input=0.1, reasoning=3.0, version="routes file")
    assert cost(Usage(input=10), found, PRICES.version) == Cost(10, "routes file")


def test_a_price_of_zero_in_the_routes_file_is_known():
    assert cost(Usage(input=10), price_of(target("x", Price(0, 0)), PRICES, None), VERSION) == Cost(0, "routes file")


@pytest.mark.parametrize(
    "name", ["small", "SMALL", "small-latest", "small-2025-08-07", "small-20250807", "small@20250807", "models/small"]
)
def test_a_model_is_found_by_its_aliases_and_its_dates(name):
    assert rates(name) == rates("small")


def test_a_dated_model_with_a_price_of_its_own_has_that():
    assert rates("small-2024-05-13").input == 5.0


@pytest.mark.parametrize(
    "name", ["smaller", "small-2025", "small-mini", "2025-08-07", "", "x-2025-08-07", "long-latest"]
)
def test_another_name_stays_unknown(name):
    assert PRICES.rates("openai", name) is None


@pytest.mark.parametrize(
    ("kind", "host", "vendor"),
    [
        pytest.param("openai", "api.openai.com", "openai", id="openai"),
        pytest.param("openai", "API.Host.Example", "host", id="a compatible host"),
        pytest.param("openai", "gateway.internal", "openai", id="a gateway sells what it fronts"),
        pytest.param("azure_openai", "east.openai.azure.com", "azure_openai", id="azure"),
        pytest.param("ollama", "127.0.0.1", None, id="a model of one's own"),
    ],
)
def test_the_vendor_is_known_by_the_kind_and_host_of_the_provider(kind, host, vendor):
    assert PRICES.vendor(kind, host) == vendor


def test_a_model_that_a_vendor_does_not_sell_is_unknown_there():
    assert PRICES.rates("host", "small") is None
    assert PRICES.rates("openai", "Org/Llama-70B") is None
    assert PRICES.rates(None, "small") is None


@pytest.mark.parametrize(
    ("vendor", "model", "served", "found"),
    [
        pytest.param("azure_openai", "our-deployment", "small-2025-08-07", 0.3, id="a deployment by what it serves"),
        pytest.param("azure_openai", "our-deployment", None, None, id="a deployment before its first reply"),
        pytest.param("azure_openai", "small", None, 0.3, id="a deployment named for its model"),
        pytest.param("azure_openai", "small", "unheard-of", None, id="a deployment whose name misleads"),
        pytest.param("openai", "small", "thinker", 1.0, id="what the reply names"),
        pytest.param("openai", "small", "internal-name", 0.25, id="a reply's name that says nothing"),
    ],
)
def test_the_served_model_decides(vendor, model, served, found):
    priced = price_of(target(model), PRICES, vendor, served)
    assert (priced and priced.input) == found


def test_what_is_expected_is_priced_as_input_and_output():
    assert expected(rates("small"), 1000, 100) == 1000 * 0.25 + 100 * 2.0
    assert expected(rates("long"), 1001, 100) == 1001 * 2.0 + 100 * 15.0


@pytest.mark.parametrize(
    ("model", "shares", "micro_usd"),
    [
        pytest.param("small", Shares(cached=0.5), 137.5 + 200, id="half of it cached"),
        pytest.param("thinker", Shares(cached=0.5), 1000 + 400, id="no price of its own for the cached"),
        pytest.param("thinker", Shares(reasoning=0.5), 1000 + 50 * 4.0 + 50 * 6.0, id="half of it thought"),
        pytest.param("small", Shares(reasoning=1.0), 250 + 200, id="no price of its own for thought"),
    ],
)
def test_what_usually_has_a_price_of_its_own_is_expected_at_that(model, shares, micro_usd):
    assert expected(rates(model), 1000, 100, shares) == pytest.approx(micro_usd)


def at_worst(model: str, sent: int, answered: int) -> float:
    a_token_sent, a_token_written = worst_rates(rates(model), sent)
    return sent * a_token_sent + answered * a_token_written


def test_the_worst_case_writes_the_cache_and_reasons_to_the_end():
    assert at_worst("thinker", 1000, 100) == 1000 * 1.25 + 100 * 6.0
    assert at_worst("long", 1001, 100) == 1001 * 2.0 + 100 * 15.0


COUNT = st.integers(0, 3000)


@given(st.sampled_from(["small", "thinker", "long"]), COUNT, COUNT, COUNT, COUNT, COUNT)
def test_no_request_costs_more_than_its_worst_case(model, sent, cached, written, answered, reasoned):
    usage = Usage(input=sent, output=answered, cached=cached, reasoning=reasoned, cache_write=written)
    known = cost(usage, rates(model), VERSION).micro_usd
    assert known is not None
    assert 0 <= known <= at_worst(model, sent, answered) + 0.5


@given(st.sampled_from(["small", "thinker", "long"]), COUNT, COUNT)
def test_an_expectation_that_comes_true_is_the_cost(model, sent, answered):
    known = cost(Usage(input=sent, output=answered), rates(model), VERSION).micro_usd
    assert known == pytest.approx(expected(rates(model), sent, answered), abs=0.5 + 1e-6)


def broken(path, value):
    table = copy.deepcopy(TABLE)
    place: Any = table
    *way, last = path
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(table)


OPENAI = ("vendors", "openai")
SMALL = (*OPENAI, "models", "small")
LONG = (*OPENAI, "models", "long")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("schema",), 2, "schema: must be 1, not 2"),
        (("unit",), "EUR per token", "unit: must be 'USD per million tokens', not 'EUR per token'"),
        (("version",), "January", "version: must be a date such as 2026-01-31, not 'January'"),
        (("vendors",), {}, "vendors: must be an object with at least one vendor"),
        ((*OPENAI, "source"), "a colleague", "vendors.openai.source: must be the https address of the price list"),
        ((*OPENAI, "checked"), None, "vendors.openai.checked: must be a date such as 2026-01-31, not None"),
        ((*OPENAI, "kinds"), [], "vendors.openai.kinds: must list the kinds of provider it is"),
        ((*OPENAI, "hosts"), "api.openai.com", "vendors.openai.hosts: must list host names"),
        ((*OPENAI, "currency"), "EUR", "vendors.openai.currency: unknown"),
        ((*OPENAI, "models"), {}, "vendors.openai.models: must be an object with at least one model"),
        (OPENAI, "cheap", "vendors.openai: must be an object"),
        (SMALL, 0.25, "vendors.openai.models.small: must be an object"),
        ((*SMALL, "output"), None, "vendors.openai.models.small.output: missing"),
        ((*SMALL, "input"), "0.25", "vendors.openai.models.small.input: must be a number of at least 0, not '0.25'"),
        ((*SMALL, "input"), -1, "vendors.openai.models.small.input: must be a number of at least 0, not -1"),
        ((*SMALL, "input"), float("nan"), "vendors.openai.models.small.input: must be a number of at least 0, not nan"),
        ((*SMALL, "input"), True, "vendors.openai.models.small.input: must be a number of at least 0, not True"),
        ((*SMALL, "cahced"), 0.1, "vendors.openai.models.small.cahced: unknown"),
        ((*SMALL, "aliases"), "tiny", "vendors.openai.models.small.aliases: must list names"),
        ((*SMALL, "aliases"), ["Thinker"], "vendors.openai.models: thinker is both small and thinker"),
        ((*LONG, "batch", "output"), None, "vendors.openai.models.long.batch.output: missing"),
        ((*LONG, "above"), {}, "vendors.openai.models.long.above: must be a list"),
        (
            (*LONG, "above", 1, "tokens"),
            1000,
            "vendors.openai.models.long.above[1].tokens: must be a whole number above 1000, not 1000",
        ),
    ],
)
def test_a_table_that_cannot_be_used_says_where(path, value, said):
    with pytest.raises(PriceTableError) as caught:
        parse(broken(path, value))
    assert said in str(caught.value).splitlines()


def test_a_table_says_all_that_is_wrong_at_once():
    with pytest.raises(PriceTableError, match=r"version: .*\nvendors.openai.source: "):
        parse(broken(("version",), 1).replace("https://prices.example/openai", "hearsay"))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7"])
def test_what_is_no_table_is_refused(text):
    with pytest.raises(PriceTableError):
        parse(text)


class TestTheTableThatShips:
    def test_is_dated_and_says_where_its_prices_are_from(self):
        table = bundled()
        assert date.fromisoformat(table.version) >= date(2026, 11, 1)
        for vendor in table.vendors.values():
            assert vendor.source.startswith("https://")
            assert date.fromisoformat(vendor.checked) <= date.fromisoformat(table.version)

    def test_is_read_once(self):
        assert bundled() is bundled()

    @pytest.mark.parametrize(
        ("kind", "host", "model"),
        [
            ("openai", "api.openai.com", "gpt-5-mini-2025-08-07"),
            ("azure_openai", "east.openai.azure.com", "gpt-5-2025-08-07"),
            ("anthropic", "api.anthropic.com", "claude-haiku-4-5-20251001"),
            ("openai", "generativelanguage.googleapis.com", "models/gemini-2.5-pro"),
            ("openai", "api.mistral.ai", "mistral-medium-latest"),
            ("openai", "api.deepseek.com", "deepseek-flash"),
            ("openai", "api.groq.com", "openai/gpt-oss-120b"),
            ("openai", "api.together.xyz", "openai/gpt-oss-120b"),
            ("openai", "api.fireworks.ai", "accounts/fireworks/models/llama4-maverick-instruct-basic"),
        ],
    )
    def test_knows_the_models_people_use(self, kind, host, model):
        table = bundled()
        found = table.rates(table.vendor(kind, host), model)
        assert found is not None
        assert found.input > 0
        assert found.version == table.version

    def test_is_plausible(self):
        for vendor in bundled().vendors.values():
            for name, model in vendor.models.items():
                assert 0.01 <= model.input <= 200, name
                assert (model.cached_input or 0) < model.input, name
                assert model.cache_write is None or model.input <= model.cache_write <= 2 * model.input, name
                assert model.batch is None or model.batch.input < model.input, name
                assert all(tier.input > model.input and tier.output > model.output for _, tier in model.above), name
