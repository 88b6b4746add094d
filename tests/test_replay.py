"""Recorded decisions under another configuration: what is compared, what is counted apart, what stops a build."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from routing import config
from routing.features import features_of
from routing.wire import ChatRequest
from tests.routes_for import ONCE, Stage
from tools import replay
from tools.replay_read import LONGEST_LINE, Recorded, decisions

ROUTES = """
[providers.p]
type = "openai"
[providers.azure]
type = "azure_openai"
endpoint = "env:NOT_SET_HERE"
key = "env:ALSO_NOT"
[targets.dear]
provider = "p"
model = "gpt-dear"
price = { input = 10, output = 100, cached_input = 1 }
max_output = 1_000
[targets.cheap]
provider = "p"
model = "gpt-cheap"
price = { input = 1, output = 10 }
[targets.unpriced]
provider = "p"
model = "nobody-knows"
[targets.tabled]
provider = "p"
model = "of-the-table"
[targets.deployment]
provider = "azure"
model = "our-own-name"
[routes.chat]
targets = ["dear", "cheap"]
[callers.kim]
key = "env:KIM"
"""


def decision(number: int = 1, **fields: Any) -> dict[str, Any]:
    """A decision as the router tells it; `facts` add to what is there."""
    facts = {
        "input_tokens": 1_000,
        "output_tokens": 300,
        "needs": ["tools"],
        "speed": {"dear": {"first_token_seconds": 1.0, "tokens_per_second": 100.0}},
        "draw": 0.5,
        **fields.pop("facts", {}),
    }
    task = {"kind": "general", "confidence": 0.9, "reason": "x"}
    plan = {"route": "chat", "strategy": "task", "task": task, "choices": [{"target": "dear", "score": 1.0}]}
    return {
        "id": f"dec_{number}",
        "at": 1_700_000_000.0 + number,
        "caller": "kim",
        "model": "chat",
        "plan": {**plan, **fields.pop("plan", {})},
        "facts": facts,
        "attempts": [],
        "target": "dear",
        "usage": {"input": 1_000, "output": 200, "cached": 0, "reasoning": 0, "cache_write": 0, "estimated": False},
        "cost": {"micro_usd": 30_000, "price_version": "routes file"},
        "from_cache": False,
        "seconds": 3.0,
        **fields,
    }


class Bench:
    """Files to replay, and what came of it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.file, self.routes, self.report = (folder / name for name in ("decisions.jsonl", "new.toml", "report.json"))
        self.told: dict[str, Any] = {}
        self.out = self.err = ""

    def __call__(self, lines: Sequence[Any], routes: str = ROUTES, *options: str) -> int:
        """The exit code; the report is then in `told`, the output in `out` and `err`."""
        written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.file.write_text("\n".join(written) + "\n")
        self.routes.write_text(routes)
        self.report.unlink(missing_ok=True)
        arguments = ["--decisions", str(self.file), "--routes", str(self.routes), "--json", str(self.report)]
        code = replay.main([*arguments, *options])
        self.told = json.loads(self.report.read_text()) if self.report.exists() else {}
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def with_targets(*names: str, more: str = "") -> str:
    listed = json.dumps(list(names))
    return ROUTES.replace(
        '[routes.chat]\ntargets = ["dear", "cheap"]\n', f"[routes.chat]\ntargets = {listed}\n{more}\n"
    )


# --- what is compared


def test_the_same_configuration_changes_nothing(bench):
    assert bench([decision(1), decision(2)]) == 0
    assert (bench.told["moved"], bench.told["cost_increase"]) == (0, 0.0)
    assert bench.told["before"] == bench.told["after"]
    assert bench.told["after"]["cost_usd"] == 0.06
    assert bench.told["compared"] == {"cost": 2, "seconds": 2}


def test_a_cheaper_target_costs_what_the_used_tokens_cost_there(bench):
    assert bench([decision()], with_targets("cheap", "dear")) == 0
    assert bench.told["after"]["targets"] == {"cheap": 1}
    assert bench.told["after"]["cost_usd"] == pytest.approx((1_000 * 1 + 200 * 10) / 1e6)
    assert (bench.told["moved"], bench.told["cost_increase"]) == (1, pytest.approx(-0.9))


def test_cached_tokens_have_their_price(bench):
    usage = {"input": 1_000, "output": 0, "cached": 600}
    bench([decision(usage=usage)])
    assert bench.told["after"]["cost_usd"] == pytest.approx((400 * 10 + 600 * 1) / 1e6)


def test_a_price_table_of_ones_own_is_used(bench):
    entry = {"input": 3.0, "output": 7.0}
    vendor = {
        "kinds": ["openai"],
        "hosts": ["api.openai.com"],
        "source": "https://example.org",
        "checked": "2026-01-31",
        "models": {"of-the-table": entry},
    }
    table = {"schema": 1, "unit": "USD per million tokens", "version": "2026-01-31", "vendors": {"openai": vendor}}
    prices = bench.folder / "prices.json"
    prices.write_text(json.dumps(table))
    assert bench([decision()], with_targets("tabled"), "--prices", str(prices)) == 0
    assert bench.told["after"]["cost_usd"] == pytest.approx((1_000 * 3 + 200 * 7) / 1e6)


def test_the_expected_time_follows_the_speeds_that_were_seen(bench):
    speed = {
        "dear": {"first_token_seconds": 1.0, "tokens_per_second": 100.0},
        "cheap": {"first_token_seconds": 0.5, "tokens_per_second": 50.0},
    }
    bench([decision(facts={"speed": speed})], with_targets("cheap", "dear"))
    assert (bench.told["before"]["expected_seconds"], bench.told["after"]["expected_seconds"]) == (3.0, 4.5)


def test_a_speed_that_was_never_seen_is_not_compared(bench):
    bench([decision()], with_targets("cheap"))
    assert bench.told["compared"] == {"cost": 1, "seconds": 0}
    assert bench.told["after"]["expected_seconds"] is None


def test_a_speed_seen_for_an_earlier_line_serves_the_later_ones(bench):
    cheap = {"cheap": {"first_token_seconds": 0.5, "tokens_per_second": 50.0}}
    bench([decision(1, facts={"speed": cheap}), decision(2)], with_targets("cheap"))
    assert bench.told["compared"]["seconds"] == 1


@pytest.mark.parametrize(
    ("more", "fields", "target"),
    [
        ('strategy = "cost"', {}, "cheap"),
        ("", {"facts": {"strategy": "cost"}}, "cheap"),
        ('strategy = "cost"', {"facts": {"strategy": "task"}}, "dear"),
        ('tasks = { planning = ["cheap"] }', {"plan": {"task": {"kind": "planning", "confidence": 0.9}}}, "cheap"),
        ('tasks = { planning = ["cheap"] }', {"plan": {"task": {"kind": "planning", "confidence": 0.3}}}, "dear"),
        ("", {"facts": {"deny": ["dear"]}}, "cheap"),
        ("", {"facts": {"only": ["cheap", "gone"]}}, "cheap"),
        ("", {"facts": {"max_cost": 20_000.0}}, "cheap"),
        ("", {"facts": {"breaker": {"dear": {"target": "dear", "reason": "open", "retry_at": 1.0}}}}, "cheap"),
        ("", {"facts": {"breaker": {"dear": {"target": "dear", "reason": "isolated", "retry_at": None}}}}, "cheap"),
        ('callers = { kim = { targets = ["cheap"] } }', {}, "cheap"),
        ('callers = { kim = { targets = ["cheap"] } }', {"caller": "lee"}, "dear"),
        ("", {"model": "cheap"}, "cheap"),
    ],
)
def test_a_decision_is_planned_by_the_new_file_and_its_own_facts(bench, more, fields, target):
    bench([decision(**fields)], with_targets("dear", "cheap", more=more))
    assert bench.told["after"]["targets"] == {target: 1}


def test_the_shares_that_were_seen_are_expected_again(bench):
    """All of the input came from the cache at `dear`, which makes it the cheaper one."""
    routes = ROUTES.replace("cached_input = 1 }", "cached_input = 0.01 }")
    routes = routes.replace("[routes.chat]\n", '[routes.chat]\nstrategy = "cost"\n')
    long = {"input_tokens": 1_000_000}
    assert bench([decision(facts=long)], routes) == 0
    assert bench.told["after"]["targets"] == {"cheap": 1}
    assert bench([decision(facts={**long, "shares": {"dear": {"cached": 1.0, "reasoning": 0.0}}})], routes) == 0
    assert bench.told["after"]["targets"] == {"dear": 1}


def test_a_ceiling_cuts_the_answer_as_it_would_have_been_cut(bench):
    usage = {"input": 1_000, "output": 900}
    bench([decision(usage=usage, facts={"max_cost": 80_000.0})])
    assert bench.told["after"]["cost_usd"] <= 0.08


def test_weights_draw_as_they_did(bench):
    pair = with_targets("dear", "cheap").replace('model = "gpt-dear"', 'model = "m"\nweight = 1')
    pair = pair.replace('model = "gpt-cheap"', 'model = "m"\nweight = 1')
    bench([decision(number, facts={"draw": number / 10}) for number in range(10)], pair)
    assert bench.told["after"]["targets"] == {"dear": 5, "cheap": 5}


def test_a_custom_strategy_is_replayed_too(bench, monkeypatch):
    (bench.folder / "replayed_strategy.py").write_text(
        "from routing.strategies import Score\n"
        "def f(target, facts):\n"
        "    return Score(float(target.name == 'cheap'), 'mine')\n"
    )
    monkeypatch.syspath_prepend(bench.folder)
    bench([decision()], with_targets("dear", "cheap", more='strategy = "replayed_strategy:f"'))
    assert bench.told["after"]["targets"] == {"cheap": 1}


# --- fallbacks, and who is answered by nobody

FAILED = [{"target": "dear", "number": 1, "outcome": "fault", "seconds": 0.1, "error": "Unavailable"}]


def test_a_target_that_failed_for_a_request_fails_for_it_again(bench):
    fell_back = decision(1, target="cheap", attempts=FAILED)
    bench([fell_back, decision(2)])
    assert (bench.told["before"]["fallback_share"], bench.told["after"]["fallback_share"]) == (0.5, 0.5)
    bench([fell_back, decision(2)], with_targets("cheap", "dear"))
    assert (bench.told["before"]["fallback_share"], bench.told["after"]["fallback_share"]) == (0.5, 0.0)


def test_a_second_attempt_at_the_same_target_is_no_fallback(bench):
    bench([decision(attempts=FAILED)])
    assert (bench.told["before"]["fell_back"], bench.told["after"]["fell_back"]) == (0, 0)


def test_who_was_answered_by_nobody_may_be_answered_now_but_has_no_cost_to_compare(bench):
    bench([decision(1, target=None, usage=None, cost=None, attempts=FAILED), decision(2)])
    assert (bench.told["before"]["unanswered"], bench.told["after"]["unanswered"]) == (1, 0)
    assert bench.told["compared"]["cost"] == 1
    assert bench.told["after"]["fell_back"] == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "gone"}, "model_not_found"),
        ({"facts": {"only": ["gone"]}}, "no_suitable_target"),
        ({"facts": {"max_cost": 1.0}}, "over_ceiling"),
    ],
)
def test_what_the_new_file_would_refuse_is_counted_by_its_code(bench, fields, code):
    assert bench([decision(1, **fields), decision(2)]) == 0
    assert (bench.told["after"]["refused"], bench.told["lost"]) == ({code: 1}, 1)
    assert f"refused: 1 x {code}" in bench.out


# --- what is unknown


def test_an_unknown_cost_is_counted_apart_and_never_as_nothing(bench):
    unknown = decision(1, cost={"micro_usd": None, "price_version": "x"})
    bench([unknown, decision(2)])
    assert (bench.told["before"]["cost_unknown"], bench.told["after"]["cost_unknown"]) == (1, 0)
    assert bench.told["compared"]["cost"] == 1
    assert bench.told["before"]["cost_usd"] == 0.03


def test_a_target_without_a_price_saves_no_money(bench):
    assert bench([decision()], with_targets("unpriced")) == 0
    assert (bench.told["cost_increase"], bench.told["cost_lost"]) == (None, 1)
    assert bench.told["after"]["cost_unknown"] == 1


def test_of_a_deployment_whose_name_says_nothing_the_recorded_cost_stays(bench):
    here = decision(1, model="deployment", target="deployment")
    bench([here, decision(2)], with_targets("deployment"))
    assert bench.told["after"]["targets"] == {"deployment": 2}
    assert (bench.told["compared"]["cost"], bench.told["cost_lost"]) == (1, 1)


def test_answers_from_the_cache_are_left_out(bench):
    bench([decision(1, from_cache=True), decision(2)])
    assert (bench.told["decisions"], bench.told["from_cache"]) == (1, 1)


# --- the exit code


@pytest.mark.parametrize(
    ("allowed", "code"), [("5%", 1), ("0.05", 1), ("899%", 1), ("900%", 0), ("9", 0), (" 1000 % ", 0)]
)
def test_a_cost_that_rises_too_much_stops_the_build(bench, allowed, code):
    cheap = decision(
        target="cheap", plan={"choices": [{"target": "cheap"}]}, cost={"micro_usd": 3_000, "price_version": ""}
    )
    assert bench([cheap], ROUTES, "--max-cost-increase", allowed) == code
    assert bench.told["cost_increase"] == pytest.approx(9.0)
    assert bool(bench.told["problems"]) == bool(code)


@pytest.mark.parametrize(
    ("line", "routes", "problem"),
    [
        (decision(), with_targets("unpriced"), "the cost of 1 decisions was known and is unknown now"),
        (decision(model="gone"), ROUTES, "1 requests were answered and would be by nobody now"),
        (decision(cost=None), ROUTES, "no decision has a known cost on both sides"),
    ],
    ids=["cost lost", "answer lost", "nothing known"],
)
def test_what_cannot_be_told_stops_the_build_too(bench, line, routes, problem):
    assert bench([line], routes) == 0
    assert bench([line], routes, "--max-cost-increase", "5%") == 1
    assert problem in bench.told["problems"]
    assert problem in bench.out


def test_what_was_free_may_not_cost_anything(bench):
    free = decision(cost={"micro_usd": 0, "price_version": "x"})
    assert bench([free], ROUTES, "--max-cost-increase", "500%") == 1
    assert bench.told["cost_increase"] is None


@pytest.mark.parametrize("allowed", ["-5%", "five", "5%%", "nan", ""])
def test_a_share_that_is_none_is_refused(bench, allowed):
    with pytest.raises(SystemExit) as caught:
        bench([decision()], ROUTES, f"--max-cost-increase={allowed}")
    assert caught.value.code == 2


# --- bad input

BAD = [
    ("{", "Invalid JSON"),
    ("[]", "Input should be an object"),
    ('{"id": "x"}', "caller: Field required"),
    (
        json.dumps(decision(facts={"input_tokens": -1})),
        "facts.input_tokens: Input should be greater than or equal to 0",
    ),
    (json.dumps(decision(usage={"input": 1, "output": "many"})), "usage.output: Input should be a valid integer"),
    (json.dumps(decision(plan={"task": {"kind": "cooking"}})), "plan.task.kind: Input should be 'general'"),
    (json.dumps(decision(facts={"draw": float("nan")})), "facts.draw: Input should be a finite number"),
    ("x" * (LONGEST_LINE + 5), f"is longer than {LONGEST_LINE} bytes"),
    ("\udcff", "Invalid JSON"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_line_is_named_and_the_others_count(bench, line, reason):
    text = "\n".join([json.dumps(decision(1)), "", line, json.dumps(decision(2))])
    bench.file.write_text(text, errors="surrogateescape")
    bench.routes.write_text(ROUTES)
    assert replay.main(["--decisions", str(bench.file), "--routes", str(bench.routes)]) == 2
    out, err = bench._capsys.readouterr()
    assert err.startswith(f"{bench.file}:3: {reason}")
    assert "2 decisions" in out
    assert "1 bad lines" in out


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"usage": {"input": 1, "output": 10**400}}, "usage.output"),
        ({"cost": {"micro_usd": 10**400, "price_version": "x"}}, "cost.micro_usd"),
        ({"facts": {"input_tokens": 10**30}}, "facts.input_tokens"),
    ],
)
def test_a_number_that_cannot_be_reckoned_with_makes_a_bad_line(bench, fields, place):
    assert bench([decision(1), decision(2, **fields)]) == 2
    assert f"decisions.jsonl:2: {place}: " in bench.err
    assert bench.told["decisions"] == 1


def test_a_mark_in_front_of_the_file_is_no_part_of_its_first_line(bench):
    assert bench(["\ufeff" + json.dumps(decision(1)), decision(2)]) == 0
    assert bench.told["decisions"] == 2


def test_a_report_that_cannot_be_written_is_no_rise_of_the_cost(bench, capsys):
    assert bench([decision()]) == 0
    report = bench.folder / "nowhere" / "report.json"
    files = ["--decisions", str(bench.file), "--routes", str(bench.routes)]
    assert replay.main([*files, "--json", str(report)]) == 2
    assert f"{report}: No such file or directory" in capsys.readouterr().err


def test_many_bad_lines_are_counted_not_listed(bench):
    assert bench([*(["{"] * 100), decision()]) == 2
    assert bench.told["bad_lines"] == 100
    assert len(bench.err.splitlines()) == replay.NAMED + 1


@pytest.mark.parametrize("lines", [[], ["", " "], ["{"], [decision(from_cache=True)]], ids=str)
def test_a_file_without_a_decision_is_no_good_news(bench, lines):
    assert bench(lines) == 2
    assert "no decision to compare" in bench.err


def test_a_file_that_is_not_there_is_named(bench, tmp_path):
    bench([decision()])
    assert replay.main(["--decisions", str(tmp_path / "none"), "--routes", str(bench.routes)]) == 2
    assert bench._capsys.readouterr().err.endswith("none: No such file or directory\n")


def test_a_refused_routes_file_is_explained_in_full(bench):
    assert bench([decision()], '[routes.chat]\ntargets = ["a", "b"]\n') == 2
    assert [line.partition(": ")[0] for line in bench.err.splitlines()] == [
        "routes.chat.targets[0]",
        "routes.chat.targets[1]",
    ]


@pytest.mark.parametrize("content", ["{}", "{", None], ids=["empty", "cut", "absent"])
def test_a_refused_price_table_is_named(bench, content):
    prices = bench.folder / "prices.json"
    if content:
        prices.write_text(content)
    assert bench([decision()], ROUTES, "--prices", str(prices)) == 2
    assert bench.err.startswith(f"{prices}: ")


# --- the figures for people


def test_the_table_tells_the_same(bench):
    bench([decision(1), decision(2, target="cheap", attempts=FAILED)], with_targets("cheap", "dear"))
    heading, columns, cost, *_ = bench.out.splitlines()
    assert heading == "2 decisions: 1 would go to another target; apart: 0 from the cache, 0 bad lines"
    assert columns.split() == ["before", "after", "difference"]
    assert cost.split() == ["cost", "of", "2", "decisions,", "USD", "0.060000", "0.006000", "-0.054000", "(-90.0%)"]
    (mix,) = (line.split() for line in bench.out.splitlines() if line.startswith("share of cheap"))
    assert mix == ["share", "of", "cheap", "50.00%", "100.00%", "+50.00%"]


# --- from the router's own file


def test_what_the_router_recorded_can_be_replayed(stage: Stage, bench: Bench):
    one, two = stage.standin(name="one"), stage.standin(name="two")
    tables: dict[str, Any] = {
        "one": {"price": {"input": 10, "output": 100}},
        "two": {"price": {"input": 1, "output": 10}},
    }
    stage.serve(one, two, route={"retry": ONCE}, targets=tables)
    body: dict[str, Any] = {"n": 2, "max_tokens": 40, "router": {"min_quality": 0.5, "priority": 9, "deny": ["two"]}}
    assert stage.ask(**body).status_code == 200
    assert stage.ask(stream=True).status_code == 200
    with stage.http() as client:
        lines = client.get("/v1/router/decisions", params={"format": "jsonl"}).text.splitlines()
    same = ROUTES.replace('targets = ["dear", "cheap"]', 'targets = ["one", "two"]')
    same = same.replace("targets.dear", "targets.one").replace("targets.cheap", "targets.two")
    assert bench(lines, same, "--max-cost-increase", "0%") == 0
    assert (bench.told["moved"], bench.told["compared"]["cost"], bench.told["bad_lines"]) == (0, 2, 0)
    recorded = [line for line in decisions(bench.file) if isinstance(line, Recorded)]
    message = {"messages": [{"role": "user", "content": "Hello there"}], "model": "chat"}
    asked = ChatRequest.parse(json.dumps({**message, **body}).encode())
    assert recorded[1].features == features_of(asked)


# --- size


def test_memory_does_not_grow_with_the_file_and_time_hardly(bench):
    bench.routes.write_text(ROUTES)
    peaks = []
    for count in (200, 2_000):
        bench.file.write_text("".join(json.dumps(decision(number)) + "\n" for number in range(count)))
        tracemalloc.start()
        replay.main(["--decisions", str(bench.file), "--routes", str(bench.routes)])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500_000
    start = time.process_time()
    replay.main(["--decisions", str(bench.file), "--routes", str(bench.routes)])
    assert time.process_time() - start < 1.5  # a tenth of a second is usual


def test_the_sample_can_be_replayed_without_its_secrets():
    sample = Path(config.__file__).parent.parent / "routes.toml"
    assert replay.build(sample, None).sums.decisions == 0
