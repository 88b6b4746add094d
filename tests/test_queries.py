"""The queries of alerts and workbook are sound, and name only what there is."""

from __future__ import annotations

import re
from pathlib import Path

from routing import errors
from tests.queries import complaints, queries, strings_in_code

ROOT = Path(__file__).resolve().parent.parent
PLATFORM_OPERATION = "SecretGet"  # of the vault's audit log


def filled(query: str) -> str:
    """With something in its blanks, as template and workbook put it there."""
    return re.sub(r"\{\w+\}", "5", query.replace("{TimeRange:grain}", "1h"))


def test_every_query_is_sound() -> None:
    told = complaints({name: filled(query) for name, query in queries().items()})
    assert len(told) > 15
    assert {name: wrong for name, wrong in told.items() if wrong} == {}


def test_a_query_that_is_not_sound_is_seen() -> None:
    told = complaints(
        {
            "column": "requests | where responseCode == 5",
            "table": "customEvent | take 1",
            "operator": "requests | summarise count()",
            "reserved": "requests | extend kind = 1",
            "sound": "requests | summarize count()",
        }
    )
    assert [name for name, wrong in told.items() if not wrong] == ["sound"]


def names_in(query: str) -> set[str]:
    return {name for name in re.findall(r'"([^"]+)"', query) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name)}


def test_queries_name_only_what_telemetry_emits() -> None:
    assert {name for query in queries().values() for name in names_in(query)} - strings_in_code() == set()


def test_queries_and_pages_name_only_errors_that_there_are():
    table = re.findall(r"^\| (`\w+`.*?) \|", (ROOT / "docs/operations/provider-down.md").read_text(), re.MULTILINE)
    in_pages = {name for row in table for name in re.findall(r"`(\w+)`", row)}
    in_queries = {name for query in queries().values() for name in re.findall(r'"([A-Z][a-z]+[A-Z]\w+)"', query)}
    assert len(in_pages) > 5
    assert "NoTarget" in in_queries
    assert {name for name in in_pages | in_queries if not hasattr(errors, name)} - {PLATFORM_OPERATION} == set()


def test_the_reader_of_queries_sees_names():
    assert names_in('where name == "llm.cost.usd" | extend x = customDimensions["router.task"], y = "NoTarget"') == {
        "llm.cost.usd",
        "router.task",
    }
