"""What only Table Storage does: the service's clock, roles, entities that are not ours."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.data.tables.aio import TableClient

from routing.cloud.tables import ServiceClock, TableStore, escape, unescape
from routing.documents import SCHEMA, StoreForbidden, StoreUnavailable, TooLarge

SDK_WARNING = "ignore:Testing an element's truth value:DeprecationWarning"  # the SDK's own, on an XML error body


def some_key() -> AzureNamedKeyCredential:
    """A credential that the SDK also sends without TLS."""
    return AzureNamedKeyCredential("account", "a2V5")


@pytest.fixture
def table() -> str:
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
async def raw(azurite: str, table: str) -> AsyncIterator[TableClient]:
    """The table as somebody else would write to it."""
    async with TableClient.from_connection_string(azurite, table) as client:
        await client.create_table()
        yield client


@pytest.fixture
async def store(azurite: str, table: str) -> AsyncIterator[TableStore]:
    tables = TableStore(azurite, table)
    yield tables
    await tables.close()


def row(key: str, **properties: Any) -> dict[str, Any]:
    return {"PartitionKey": "breakers", "RowKey": key, **properties}


FOREIGN = [
    pytest.param({}, id="nothing in it"),
    pytest.param({"colour": "blue"}, id="other columns"),
    pytest.param({"schema": SCHEMA, "body0": "{not json"}, id="not JSON"),
    pytest.param({"schema": SCHEMA, "body0": "[1]"}, id="not an object"),
    pytest.param({"schema": SCHEMA, "body0": 7}, id="not text"),
]


@pytest.mark.parametrize("properties", FOREIGN)
async def test_a_foreign_entity_reads_as_empty_and_is_kept_when_set_aside(
    raw: TableClient, store: TableStore, properties: dict[str, Any]
):
    await raw.create_entity(row("gpt", **properties))
    held = (await store.load_all())["gpt"]
    assert held.document == {}
    await store.set_aside("gpt", held.etag, "not a breaker")
    aside = [entity async for entity in raw.query_entities("PartitionKey eq 'breakers-aside'")]
    assert [entity["set_aside_because"] for entity in aside] == ["not a breaker"]
    assert properties.items() <= aside[0].items()
    assert await store.load_all() == {}


async def test_a_newer_layout_is_marked_without_being_read(raw: TableClient, store: TableStore):
    await raw.create_entity(row("gpt", schema=SCHEMA + 1, body0="{of the future"))
    held = await store.load("gpt")
    assert held is not None
    assert held.newer


async def test_other_partitions_are_not_read(raw: TableClient, store: TableStore):
    await raw.create_entity({"PartitionKey": "ledger", "RowKey": "gpt"})
    assert await store.load_all() == {}


async def test_many_instances_may_create_the_table_at_once(azurite: str, table: str):
    stores = [TableStore(azurite, table) for _ in range(4)]
    assert await asyncio.gather(*(each.load_all() for each in stores)) == [{}] * 4
    for each in stores:
        await each.close()


async def test_the_services_clock_is_learned_from_its_answers(azurite: str, table: str):
    store = TableStore(azurite, table, clock=lambda: time.time() - 3600)
    await store.load_all()
    assert 3598 < store.offset < 3602
    await store.close()


@pytest.mark.filterwarnings(SDK_WARNING)
async def test_a_wrong_key_is_said_to_be_one(azurite: str, table: str):
    key = next(part for part in azurite.split(";") if part.startswith("AccountKey="))
    store = TableStore(azurite.replace(key, "AccountKey=d3Jvbmc="), table)
    with pytest.raises(StoreForbidden, match="connection string"):
        await store.load_all()
    await store.close()


async def test_a_missing_role_is_named():
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"odata.error":{"code":"AuthorizationPermissionMismatch","message":{"value":"no"}}}'
        head = f"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    account = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    store = TableStore(account, "routing", some_key)
    async with server:
        with pytest.raises(StoreForbidden) as refused:
            await store.load_all()
        await store.close()
    assert "Storage Table Data Contributor" in str(refused.value)
    assert account in str(refused.value)


async def test_a_store_that_is_away_says_so(unused_tcp_port: int):
    store = TableStore(f"http://127.0.0.1:{unused_tcp_port}", "routing", some_key)
    with pytest.raises(StoreUnavailable):
        await store.load_all()
    await store.close()


@pytest.mark.parametrize("key", ["", "plain-1.x_y", "a/b\\c#d?e%f", "=20", "日本", " "])
def test_an_escaped_key_is_plain_and_comes_back(key: str):
    assert set(escape(key)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-=")
    assert unescape(escape(key)) == key


def test_a_key_that_is_not_ours_is_shown_as_it_is():
    assert unescape("=FF=FE") == "=FF=FE"


def test_a_key_that_would_not_fit_is_refused():
    with pytest.raises(TooLarge):
        escape("/" * 200)


class TestServiceClock:
    def test_a_clock_that_agrees_is_not_corrected(self):
        clock = ServiceClock()
        for now in (100.05, 101.9, 103.4):
            clock.heard(float(int(now)), now - 0.01, now + 0.01)
        assert clock.offset == 0.0

    @pytest.mark.parametrize("wrong", [-4000.0, -2.5, 2.5, 4000.0])
    def test_answers_narrow_the_correction(self, wrong: float):
        clock = ServiceClock()
        for n in range(40):
            now = 100 + n * 1.037
            clock.heard(float(int(now + 0.005)), now + wrong, now + 0.01 + wrong)
        assert abs(clock.offset + wrong) < 0.06

    def test_a_clock_that_is_set_is_followed(self):
        clock = ServiceClock()
        clock.heard(100.0, 100.2, 100.3)
        clock.heard(101.0, 161.2, 161.3)
        assert -60.31 <= clock.offset <= -59.19
