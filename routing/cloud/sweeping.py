"""Tables whose rows are removed when they are old, many at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from routing.cloud.tables import TableStore

MOST_AT_ONCE = 100  # operations of one transaction, by the service's limit
PAGE = 1_000  # entities in one answer of the service
_KEYS = ("PartitionKey", "RowKey")


class SweptTable(TableStore):
    """A table with queries over many partitions."""

    async def _sweep(self, query: str, named: Mapping[str, Any]) -> int:
        """Removes the rows that match. Returns how many there were. Raises StoreUnavailable."""
        await self._load_sdk()
        removed = 0
        waiting: list[Mapping[str, Any]] = []
        async with aclosing(self._matching(query, named, PAGE, list(_KEYS))) as entities:
            async for entity in entities:
                if waiting and (len(waiting) == MOST_AT_ONCE or waiting[0][_KEYS[0]] != entity[_KEYS[0]]):
                    removed += await self._remove(waiting)
                    waiting = []
                waiting.append(entity)
        return removed + await self._remove(waiting)

    async def _remove(self, entities: Sequence[Mapping[str, Any]]) -> int:
        if entities:
            keys = [{name: entity[name] for name in _KEYS} for entity in entities]
            with self._errors():
                await self._open().submit_transaction([("delete", each) for each in keys], **self._timed())
        return len(entities)

    async def _matching(
        self, query: str, named: Mapping[str, Any], page: int, columns: list[str] | None = None
    ) -> AsyncGenerator[Mapping[str, Any]]:
        from azure.core.exceptions import ResourceNotFoundError

        with self._errors():
            try:
                found = self._open().query_entities(
                    query, parameters=dict(named), results_per_page=page, select=columns, **self._timed()
                )
                async for entity in found:
                    yield entity
            except ResourceNotFoundError:
                return
