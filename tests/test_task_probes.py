"""Task detection on requests written by hand; the floors lie well below what docs/task-detection.md records."""

from __future__ import annotations

import pytest
from pydantic_core import to_json

from routing.tasks import DEFAULT_MIN
from routing.types import TASK_KINDS
from tools.task_probes import PROBES, Tried, as_answered, main, read_probes, share_right, try_all


@pytest.fixture(scope="module", params=["fresh", "read"])
def tried(request: pytest.FixtureRequest) -> list[Tried]:
    return try_all([probe for probe in read_probes() if probe.fresh == (request.param == "fresh")])


def test_there_are_probes_of_every_kind_and_of_many_languages() -> None:
    probes = read_probes()
    assert len(probes) > 700
    assert {probe.kind for probe in probes} == set(TASK_KINDS)
    assert {"de", "fr", "es", "it", "pt", "ja", "zh", "ko", "ru", "ar", "hi"} <= {probe.lang for probe in probes}
    assert any(probe.parts.system for probe in probes)
    assert any(len(probe.parts.turns) > 1 for probe in probes)


def test_no_probe_was_trained_on() -> None:
    kept = (PROBES.parent / "requests.jsonl").read_text("utf-8")
    for probe in read_probes():
        text = probe.parts.turns[-1][1]
        assert len(text) < 60 or to_json(text).decode()[1:-1] not in kept


def test_most_probes_are_told_right(tried: list[Tried]) -> None:
    assert share_right(tried) > 0.7


def test_the_surer_half_is_nearly_always_right(tried: list[Tried]) -> None:
    assert share_right(tried[: len(tried) // 2]) > 0.9


def test_few_of_the_answers_are_wrong_rather_than_general(tried: list[Tried]) -> None:
    said = [each for each in tried if each.confidence >= DEFAULT_MIN]
    assert len(said) > len(tried) // 2
    assert share_right(said) > 0.8


def test_what_is_uncertain_counts_as_general(tried: list[Tried]) -> None:
    general = sum(each.probe.kind == "general" for each in tried) / len(tried)
    assert as_answered(tried, 0.0) == share_right(tried)
    assert as_answered(tried, 1.01) == pytest.approx(general)


def test_the_figures_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    printed = capsys.readouterr().out
    assert "fresh" in printed
    assert "surer half" in printed
