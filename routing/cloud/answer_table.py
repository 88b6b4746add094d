"""Answers that instances share, in Azure Table Storage: sealed, spread over partitions, removed when they are old."""

from __future__ import annotations

from typing import Any

from routing.cloud.sweeping import SweptTable
from routing.cloud.tables import PART
from routing.documents import LARGEST, TooLarge


class AnswerTable(SweptTable):
    """Rows by name, in 256 partitions by how the name begins. Nobody minds who wrote one last."""

    async def put(self, name: str, until: float, text: str) -> None:
        """Writes the row, whatever stood there. Raises StoreUnavailable, TooLarge."""
        if len(text) > LARGEST:
            raise TooLarge(f"an answer of {len(text)} characters is more than the {LARGEST} that fit into an entity")
        await self._load_sdk()
        from azure.core.exceptions import ResourceNotFoundError
        from azure.data.tables import UpdateMode

        parts = {f"body{place:03}": text[at : at + PART] for place, at in enumerate(range(0, len(text), PART))}
        entity = {"PartitionKey": name[:2], "RowKey": name, "until": until, **parts}
        with self._errors():
            try:
                await self._open().upsert_entity(entity, mode=UpdateMode.REPLACE, **self._timed())
            except ResourceNotFoundError:
                await self._create_table()
                await self._open().upsert_entity(entity, mode=UpdateMode.REPLACE, **self._timed())

    async def get(self, name: str) -> tuple[float, str] | None:
        """Until when the row is good (epoch seconds), and its text. Raises StoreUnavailable."""
        await self._load_sdk()
        from azure.core.exceptions import ResourceNotFoundError

        with self._errors():
            try:
                entity: dict[str, Any] = dict(await self._open().get_entity(name[:2], name, **self._timed()))
            except ResourceNotFoundError:
                return None
        until = entity.get("until")
        texts = [entity[part] for part in sorted(entity) if part.startswith("body")]
        if not isinstance(until, float) or not all(isinstance(text, str) for text in texts):
            return None
        return until, "".join(texts)

    async def remove_before(self, at: float) -> int:
        """Removes what was good until then. Raises StoreUnavailable."""
        return await self._sweep("until lt @at", {"at": at})
