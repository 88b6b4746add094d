"""What the simulation promises: the numbers hold for a small fleet in every outage, for a large one in the hardest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.breaker_scale import SHAPES, Row, line, simulate

BY_NAME = {shape.name: shape for shape in SHAPES}


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {name: simulate(shape, 30) for name, shape in BY_NAME.items()}


@pytest.mark.parametrize("shape", sorted(BY_NAME))
def test_a_healthy_fleet_reads_once_a_second_and_writes_nothing(rows: dict[str, Row], shape: str):
    row = rows[shape]
    assert 27 <= row.reads_rest <= 33
    assert shape.startswith("noise") or row.writes_rest == 0


@pytest.mark.parametrize("shape", ["hard", "half fails", "flapping", "one region"])
def test_what_one_instance_decides_all_know_within_two_seconds(rows: dict[str, Row], shape: str):
    row = rows[shape]
    assert row.first is not None
    assert row.last is not None
    assert row.last - row.first < 2


@pytest.mark.parametrize("shape", ["hard", "half fails", "flapping"])
def test_each_period_has_one_probe(rows: dict[str, Row], shape: str):
    assert (rows[shape].periods > 0, rows[shape].most_probes) == (True, 1)


def test_a_hold_reaches_everybody_with_the_next_look(rows: dict[str, Row]):
    throttling = rows["throttling"]
    assert throttling.last is not None
    assert throttling.last < 1.5


def test_a_few_faults_among_many_calls_trip_nothing(rows: dict[str, Row]):
    assert rows["noise 1 %"].first is None


def test_the_same_seed_gives_the_same_row():
    assert simulate(BY_NAME["hard"], 3, seed=7) == simulate(BY_NAME["hard"], 3, seed=7)


def test_a_line_shows_what_never_happened(rows: dict[str, Row]):
    assert "| - | - |" in line(rows["noise 1 %"])


@pytest.mark.parametrize("shape", ["hard", "half fails"])
def test_a_thousand_instances_stop_in_time_and_stay_within_the_tables_means(shape: str):
    row = simulate(replace(BY_NAME[shape], seconds=18), 1000)
    assert row.last is not None
    assert row.last < 3.1
    assert (row.peak < 1500, row.writes_rest) == (True, 0)


def test_a_look_costs_the_same_however_many_targets_there_are():
    row = simulate(replace(BY_NAME["hard, 20 targets"], seconds=18), 100)
    assert row.first is not None
    assert row.reads_rest < 110
    assert row.peak < 250


def test_a_large_fleet_sends_one_probe():
    row = simulate(replace(BY_NAME["hard"], seconds=50), 300)
    assert (row.periods, row.most_probes) == (1, 1)
