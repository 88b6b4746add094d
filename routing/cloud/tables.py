"""Documents in Azure Table Storage: one entity each, saved under its ETag."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from routing.documents import (
    SCHEMA,
    Conflict,
    StoreForbidden,
    StoreUnavailable,
    TooLarge,
    Versioned,
    decode,
    encode,
    schema_of,
)

if TYPE_CHECKING:
    from azure.core.credentials import AzureNamedKeyCredential
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.data.tables import TableEntity
    from azure.data.tables.aio import TableClient

ROLE = "Storage Table Data Contributor"
PART = 30_000  # characters of a string property: 64 KiB at two bytes each is the service's limit
LONGEST_KEY = 400  # characters of an escaped key; the service's limit is 512, and what is set aside gets a suffix
PLAIN = re.compile(r"[^A-Za-z0-9._-]")


class ServiceClock:
    """The difference between the service's clock and ours, from the `Date` header of its answers.

    The header is cut to whole seconds, so one answer gives a range; the ranges of all answers are intersected. The
    offset is the smallest correction that they allow: none while our clock agrees with all of them.
    """

    def __init__(self) -> None:
        self._low, self._high = float("-inf"), float("inf")

    @property
    def offset(self) -> float:
        """Seconds to add to our clock."""
        return min(max(0.0, self._low), self._high)

    def heard(self, date: float, sent: float, received: float) -> None:
        """An answer dated `date`, to a request of `sent` that arrived at `received`, all in epoch seconds."""
        low, high = date - received, date + 1 - sent
        if max(low, self._low) > min(high, self._high):
            self._low, self._high = low, high  # one of the clocks was set
        else:
            self._low, self._high = max(low, self._low), min(high, self._high)


class TableStore:
    """Documents as entities of one partition of `table`, which is created when it is missing.

    `account` is a connection string, or an endpoint like https://NAME.table.core.windows.net together with
    `credential`, which is called once, at the first use. Loads the Azure SDK then, too. Time limits are the caller's.
    """

    def __init__(
        self,
        account: str,
        table: str,
        credential: Callable[[], AsyncTokenCredential | AzureNamedKeyCredential] | None = None,
        *,
        partition: str = "breakers",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._account, self._table, self._credential = account, table, credential
        self._partition, self._clock = escape(partition), clock
        self._service = ServiceClock()
        self._client: TableClient | None = None

    @property
    def offset(self) -> float:
        """Seconds to add to our clock to get the service's."""
        return self._service.offset

    async def load(self, key: str) -> Versioned | None:
        """The document of `key`; an entity that is not one of ours reads as an empty document."""
        await self._load_sdk()
        from azure.core.exceptions import ResourceNotFoundError

        with self._errors():
            try:
                return _versioned(await self._open().get_entity(self._partition, escape(key), **self._timed()))
            except ResourceNotFoundError as error:
                if code_of(error) == "TableNotFound":
                    await self._create_table()
                return None

    async def load_all(self) -> Mapping[str, Versioned]:
        """All documents by key, with one query."""
        await self._load_sdk()
        from azure.core.exceptions import ResourceNotFoundError

        query, named = "PartitionKey eq @partition", {"partition": self._partition}
        with self._errors():
            try:
                found = self._open().query_entities(query, parameters=named, **self._timed())
                return {unescape(entity["RowKey"]): _versioned(entity) async for entity in found}
            except ResourceNotFoundError:
                await self._create_table()
                return {}

    async def save(self, key: str, document: Mapping[str, Any], etag: str | None) -> Versioned:
        """Writes if the stored version is still `etag` (None: if there is none). Raises Conflict, TooLarge."""
        await self._load_sdk()
        entity = self._entity(key, document)
        with self._errors(conflict=key):
            if etag is None:
                answer = await self._create(entity)
            else:
                answer = await self._open().update_entity(entity, mode=_replace(), **_only_if(etag), **self._timed())
        return Versioned(decode(encode(key, document)), answer["etag"], schema_of(document))

    async def set_aside(self, key: str, etag: str, why: str) -> None:
        """Moves an entity to the partition of the set aside, where `load` does not look. Raises Conflict."""
        await self._load_sdk()
        client = self._open()
        with self._errors(conflict=key):
            entity = await client.get_entity(self._partition, escape(key), **self._timed())
            if entity.metadata["etag"] != etag:
                raise Conflict(f"{key}: another version was saved")
            suffix = hashlib.sha256(etag.encode()).hexdigest()[:12]
            named = {"PartitionKey": f"{self._partition}-aside", "RowKey": f"{escape(key)}-{suffix}"}
            await client.upsert_entity({**entity, **named, "set_aside_because": why[:1000]}, **self._timed())
            await client.delete_entity(self._partition, escape(key), **_only_if(etag), **self._timed())

    async def close(self) -> None:
        """Gives the connections back."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _create(self, entity: dict[str, Any]) -> Mapping[str, Any]:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return await self._open().create_entity(entity, **self._timed())
        except ResourceNotFoundError:
            await self._create_table()
            return await self._open().create_entity(entity, **self._timed())

    async def _load_sdk(self) -> None:
        """Imports what is needed in a thread: it takes a tenth of a second, for which no request has to wait."""
        if self._client is None:
            await asyncio.to_thread(importlib.import_module, "azure.data.tables.aio")

    def _open(self) -> TableClient:
        if self._client is None:
            from azure.data.tables.aio import TableClient

            once: dict[str, Any] = {"retry_total": 0}  # who waits for us knows better when to ask again
            if "=" in self._account:
                self._client = TableClient.from_connection_string(self._account, self._table, **once)
            else:
                credential = self._credential() if self._credential else None
                self._client = TableClient(self._account, self._table, credential=credential, **once)
        return self._client

    def _entity(self, key: str, document: Mapping[str, Any]) -> dict[str, Any]:
        text = encode(key, document)
        parts = {f"body{at // PART}": text[at : at + PART] for at in range(0, len(text), PART)}
        return {"PartitionKey": self._partition, "RowKey": escape(key), "schema": schema_of(document), **parts}

    def _timed(self) -> dict[str, Any]:
        """Has the service's clock read off the answer."""
        sent = self._clock()

        def hook(response: Any) -> None:
            if date := response.http_response.headers.get("Date"):
                self._service.heard(parsedate_to_datetime(date).timestamp(), sent, self._clock())

        return {"raw_response_hook": hook}

    async def _create_table(self) -> None:
        from azure.core.exceptions import ResourceExistsError

        with suppress(ResourceExistsError):
            await self._open().create_table()

    @contextmanager
    def _errors(self, conflict: str | None = None) -> Iterator[None]:
        """Turns the SDK's exceptions into the store's; `conflict` is the key that others may have written."""
        from azure.core.exceptions import AzureError

        try:
            yield
        except AzureError as error:
            status = getattr(error, "status_code", None)
            if status in (401, 403):
                raise StoreForbidden(self._forbidden(error)) from None
            if conflict is not None and status in (404, 409, 412):
                raise Conflict(f"{conflict}: another version was saved") from None
            raise StoreUnavailable(f"table {self._table}: {code_of(error) or type(error).__name__}") from None

    def _forbidden(self, error: Exception) -> str:
        why = f"table {self._table}: {code_of(error) or 'access denied'}"
        if "=" in self._account:
            return f"{why}; the connection string's key or signature is not accepted"
        return f'{why}; give the identity the role "{ROLE}" on {self._account}'


def escape(key: str) -> str:
    """`key` in characters that every tool takes in a row's key. Raises TooLarge."""
    escaped = PLAIN.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), key)
    if len(escaped) > LONGEST_KEY:
        raise TooLarge(f"the key {key[:40]}... is longer than {LONGEST_KEY} characters when escaped")
    return escaped


def unescape(escaped: str) -> str:
    """What `escape` was given; a key that it did not write comes back as it is."""
    try:
        return re.sub(rb"=([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), escaped.encode()).decode()
    except UnicodeDecodeError:
        return escaped


def _versioned(entity: TableEntity) -> Versioned:
    etag, schema = entity.metadata["etag"] or "", entity.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        return Versioned({}, etag, schema)
    names = sorted((name for name in entity if re.fullmatch(r"body\d+", name)), key=lambda name: int(name[4:]))
    try:
        return Versioned(decode("".join(entity[name] for name in names)), etag)
    except (TypeError, ValueError):
        return Versioned({}, etag)


def _only_if(etag: str) -> dict[str, Any]:
    from azure.core import MatchConditions

    return {"etag": etag, "match_condition": MatchConditions.IfNotModified}


def _replace() -> Any:
    from azure.data.tables import UpdateMode

    return UpdateMode.REPLACE


def code_of(error: Exception) -> str:
    return str(getattr(getattr(error, "error_code", None), "value", getattr(error, "error_code", "")) or "")
