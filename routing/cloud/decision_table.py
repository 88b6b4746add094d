"""Decisions in Azure Table Storage: a partition for each day, the newest first in the table and in each partition.

Both keys follow from a decision's id, which begins with its time: one look-up finds it, and a page is a range.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from routing.cloud.sweeping import MOST_AT_ONCE, PAGE, SweptTable
from routing.cloud.tables import PART, code_of
from routing.documents import DecisionRow, Wanted

LATEST = 0xFFFFFFFFFFFF  # milliseconds that an id can say
LAST_MOMENT = 253_402_300_799  # epoch seconds: a calendar ends here
LARGEST = 400_000  # characters of a decision; a longer one is not kept
MOST_CHARACTERS = 1_500_000  # in one transaction, which the service limits to 4 MiB


class DecisionTable(SweptTable):
    """Rows that are written once and removed by the day."""

    async def put(self, rows: Sequence[DecisionRow]) -> None:
        """Writes rows, in one transaction for each day. Raises StoreUnavailable."""
        await self._load_sdk()
        from azure.core.exceptions import HttpResponseError

        entities = sorted((_entity_of(row) for row in rows if len(row.text) <= LARGEST), key=_keys)
        for batch in _batches(entities):
            operations = [("upsert", entity, {"mode": "replace"}) for entity in batch]
            with self._errors():
                try:
                    await self._open().submit_transaction(operations, **self._timed())
                except HttpResponseError as error:
                    if code_of(error) != "TableNotFound":
                        raise
                    await self._create_table()
                    await self._open().submit_transaction(operations, **self._timed())

    async def get(self, decision_id: str) -> str | None:
        """One decision's JSON. Raises StoreUnavailable."""
        await self._load_sdk()
        from azure.core.exceptions import ResourceNotFoundError

        with self._errors():
            try:
                return _text(await self._open().get_entity(*keys_of(decision_id), **self._timed()))
            except ResourceNotFoundError:
                return None

    async def page(self, wanted: Wanted) -> list[str]:
        """Decisions' JSON, newest first. Raises StoreUnavailable."""
        await self._load_sdk()
        query, named = _query(wanted)
        found: list[str] = []
        async with aclosing(self._matching(query, named, min(PAGE, wanted.limit))) as entities:
            async for entity in entities:
                found.append(_text(entity))
                if len(found) >= wanted.limit:
                    break
        return found

    async def remove_before(self, at: float) -> int:
        """Removes the days before the one of `at`. Raises StoreUnavailable."""
        return await self._sweep("PartitionKey gt @day", {"day": _partition(at)})


def keys_of(decision_id: str) -> tuple[str, str]:
    """Partition and row of a decision."""
    milliseconds = int(decision_id[4:16], 16)
    return _partition(milliseconds / 1000), f"{LATEST - milliseconds:012x}{decision_id[16:]}"


def _partition(at: float) -> str:
    return f"{99_999_999 - int(datetime.fromtimestamp(min(at, LAST_MOMENT), UTC).strftime('%Y%m%d')):08d}"


def _query(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    clauses, named = ["PartitionKey ge @newest"], dict[str, Any](newest="")
    if wanted.until is not None:
        until = min(wanted.until, LAST_MOMENT)
        clauses.append("RowKey ge @first")
        named |= {"newest": _partition(until), "first": f"{LATEST - int(until * 1000):012x}"}
    if wanted.after is not None:
        clauses.append("RowKey gt @after")
        day, named["after"] = keys_of(wanted.after)
        named["newest"] = max(day, named["newest"])
    if wanted.since is not None:
        since = min(wanted.since, LAST_MOMENT)
        clauses += ["PartitionKey le @oldest", "RowKey lt @last"]
        named |= {"oldest": _partition(since), "last": f"{LATEST - int(since * 1000):012x}g"}
    for name in ("caller", "route"):
        if (value := getattr(wanted, name)) is not None:
            clauses.append(f"{name} eq @{name}")
            named[name] = value
    return " and ".join(clauses), named


def _entity_of(row: DecisionRow) -> dict[str, Any]:
    partition, key = keys_of(row.id)
    parts = {f"body{place:03}": row.text[at : at + PART] for place, at in enumerate(range(0, len(row.text), PART))}
    return {"PartitionKey": partition, "RowKey": key, "caller": row.caller, "route": row.route, **parts}


def _text(entity: Mapping[str, Any]) -> str:
    return "".join(entity[name] for name in sorted(entity) if name.startswith("body"))


def _keys(entity: Mapping[str, Any]) -> tuple[str, str]:
    return entity["PartitionKey"], entity["RowKey"]


def _batches(entities: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """What one transaction takes: one partition, not too many, not too long. `entities` are sorted."""
    for _, same in groupby(entities, key=lambda entity: entity["PartitionKey"]):
        batch: list[dict[str, Any]] = []
        size = 0
        for entity in same:
            length = len(_text(entity))
            if batch and (len(batch) == MOST_AT_ONCE or size + length > MOST_CHARACTERS):
                yield batch
                batch, size = [], 0
            batch.append(entity)
            size += length
        yield batch
