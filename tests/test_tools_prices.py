import json
import subprocess
import sys
from pathlib import Path

import pytest

from routing.pricing import bundled
from tools.prices import main

ROOT = Path(__file__).resolve().parent.parent
PER_TOKEN = {
    "gpt-5-mini": {
        "litellm_provider": "openai",
        "input_cost_per_token": 2.5e-07,
        "output_cost_per_token": 2e-06,
        "cache_read_input_token_cost": 2.5e-08,
        "input_cost_per_token_batches": 1.25e-07,
        "input_cost_per_token_priority": 9e-06,
    },
    "azure/gpt-5-mini": {
        "litellm_provider": "azure",
        "input_cost_per_token": 2.5e-07,
        "output_cost_per_token": 2e-06,
    },
    "gemini/gemini-2.5-pro": {
        "litellm_provider": "gemini",
        "input_cost_per_token": 1.25e-06,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token": 1e-05,
        "output_cost_per_reasoning_token": 1e-05,
    },
    "sample_spec": {"litellm_provider": "one of many", "input_cost_per_token": 0.0},
}
OPENROUTER = {
    "data": [
        {"id": "openai/gpt-5-mini", "pricing": {"prompt": "0.00000025", "completion": "0.000002", "request": "0"}},
        {"id": "anthropic/claude-sonnet-4.6", "pricing": {"prompt": "0.000003", "completion": "0.000015"}},
        {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}},
        {"id": "openai/gpt-5", "pricing": None},
        "no model",
    ]
}


@pytest.fixture
def check(tmp_path, capsys):
    def run(content, *more):
        path = tmp_path / "list.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        code = main(["check", str(path), *more])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return run


def with_changes(**changes):
    return {**PER_TOKEN, "gpt-5-mini": {**PER_TOKEN["gpt-5-mini"], **changes}}


def changed(lines):
    return [" ".join(line.split()) for line in lines if " -> " in line]


@pytest.mark.parametrize(("content", "compared"), [(PER_TOKEN, 3), (OPENROUTER, 2)], ids=["litellm", "openrouter"])
def test_a_list_that_agrees_ends_well(check, content, compared):
    code, lines, _ = check(content)
    assert (code, changed(lines)) == (0, [])
    assert f" {compared} models compared, 0 changed" in lines[-1]
    assert lines[-1].startswith(f"prices of {bundled().version}: ")


def test_what_the_list_lacks_is_named_and_is_no_change(check):
    code, lines, _ = check(PER_TOKEN)
    assert code == 0
    assert "anthropic claude-sonnet-4-6: not in the list" in lines


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_cost_per_token": 3e-07}, "openai gpt-5-mini input 0.25 -> 0.3"),
        ({"output_cost_per_token": 1.5e-06}, "openai gpt-5-mini output 2 -> 1.5"),
        ({"cache_read_input_token_cost": 5e-08}, "openai gpt-5-mini cached_input 0.025 -> 0.05"),
        ({"cache_creation_input_token_cost": 3e-07}, "openai gpt-5-mini cache_write not named -> 0.3"),
        ({"input_cost_per_token_batches": 2e-07}, "openai gpt-5-mini batch input 0.125 -> 0.2"),
        ({"input_cost_per_token_above_272k_tokens": 5e-07}, "openai gpt-5-mini input above 272000 not named -> 0.5"),
        ({"output_cost_per_reasoning_token": 3e-06}, "openai gpt-5-mini reasoning not named -> 3"),
    ],
    ids=["input", "output", "cached", "cache write", "batch", "tier", "reasoning"],
)
def test_a_changed_figure_is_printed_and_ends_with_one(check, changes, said):
    code, lines, _ = check(with_changes(**changes))
    assert (code, changed(lines)) == (1, [said])
    assert " 1 changed" in lines[-1]


def test_a_changed_price_at_openrouter_is_found_under_its_spelling(check):
    dearer = {"id": "anthropic/claude-sonnet-4.6", "pricing": {"prompt": "0.000004", "completion": "0.000015"}}
    code, lines, _ = check({"data": [dearer]})
    assert (code, changed(lines)) == (1, ["anthropic claude-sonnet-4-6 input 3 -> 4"])


@pytest.mark.parametrize(
    "content", ["", "not json", "[]", "{}", '{"data": {}}', '{"gpt-5": {"price": 1}}', '"text"'], ids=repr
)
def test_a_file_in_neither_format_ends_with_two(check, content):
    code, lines, error = check(content)
    assert (code, lines) == (2, [])
    assert "list.json: " in error


def test_a_file_that_is_not_there_ends_with_two(capsys, tmp_path):
    assert main(["check", str(tmp_path / "gone.json")]) == 2
    assert "gone.json" in capsys.readouterr().err


def test_another_table_can_be_checked(check, tmp_path):
    text = (ROOT / "routing" / "data" / "prices.json").read_text()
    other = tmp_path / "other.json"
    other.write_text(text.replace(f'"version": "{bundled().version}"', '"version": "2030-01-01"'))
    code, lines, _ = check(PER_TOKEN, "--table", str(other))
    assert code == 0
    assert lines[-1].startswith("prices of 2030-01-01: ")


def test_a_table_that_cannot_be_used_ends_with_two(check, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"schema": 1}')
    code, _, error = check(PER_TOKEN, "--table", str(other))
    assert code == 2
    assert "version: must be a date" in error


def test_it_runs_as_a_command(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(with_changes(input_cost_per_token=1.0)))
    command = [sys.executable, "-m", "tools.prices", "check", str(path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "0.25 -> 1000000\n" in ran.stdout
