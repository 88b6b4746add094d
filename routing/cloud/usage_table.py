"""The ledger's rows in Azure Table Storage: a partition for each day, with a few rows of each instance in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from routing.cloud.tables import TableStore, escape, unescape
from routing.documents import decode

MARGIN = timedelta(seconds=5)  # a row may become visible after one with a later timestamp


class UsageTable(TableStore):
    """Rows of many partitions of one table. Nobody else writes a row, so that none is guarded by its ETag."""

    async def put(self, partition: str, row: str, document: Mapping[str, Any]) -> None:
        """Writes the row, whatever stood there. Raises StoreUnavailable, TooLarge."""
        await self._load_sdk()
        from azure.core.exceptions import ResourceNotFoundError

        entity = {**self._entity(row, document), "PartitionKey": escape(partition)}
        with self._errors():
            try:
                await self._open().upsert_entity(entity, mode=_replacing(), **self._timed())
            except ResourceNotFoundError:
                await self._create_table()
                await self._open().upsert_entity(entity, mode=_replacing(), **self._timed())

    async def read(self, partition: str, mark: str | None = None) -> tuple[Mapping[str, Mapping[str, Any]], str | None]:
        """The rows of a partition, with `mark` those that changed since. Raises StoreUnavailable."""
        await self._load_sdk()
        from azure.core.exceptions import ResourceNotFoundError

        query, named = "PartitionKey eq @partition", dict[str, Any](partition=escape(partition))
        if mark is not None:
            query, named = f"{query} and Timestamp ge @since", {**named, "since": datetime.fromisoformat(mark) - MARGIN}
        with self._errors():
            try:
                found = self._open().query_entities(query, parameters=named, **self._timed())
                entities = [entity async for entity in found]
            except ResourceNotFoundError:
                await self._create_table()
                return {}, None
        later = max([mark or "", *(_moment(entity.metadata["timestamp"]) for entity in entities)]) or None
        return {unescape(entity["RowKey"]): _document(entity) for entity in entities}, later

    async def drop(self, partition: str, row: str) -> None:
        """Removes the row, if it is there. Raises StoreUnavailable."""
        await self._load_sdk()
        from azure.core.exceptions import ResourceNotFoundError

        with self._errors():
            try:
                await self._open().delete_entity(escape(partition), escape(row), **self._timed())
            except ResourceNotFoundError:
                return


def _document(entity: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entity's document; empty when it is not one of ours."""
    names = sorted((name for name in entity if name.startswith("body") and name[4:].isdecimal()), key=_place)
    try:
        return decode("".join(entity[name] for name in names))
    except (TypeError, ValueError):
        return {}


def _place(name: str) -> int:
    return int(name[4:])


def _moment(timestamp: datetime | None) -> str:
    """In UTC and of one width, so that the text sorts as the times do."""
    return timestamp.astimezone(UTC).isoformat(timespec="microseconds") if timestamp else ""


def _replacing() -> Any:
    from azure.data.tables import UpdateMode

    return UpdateMode.REPLACE
