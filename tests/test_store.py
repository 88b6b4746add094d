"""One contract for every store: versioned documents, saved only over the version that was read."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from routing.cloud.tables import TableStore
from routing.documents import LARGEST, SCHEMA
from routing.store import Conflict, InMemoryStore, Store, TooLarge, Versioned, update

KEYS = ["gpt-east", "models/gpt 4?#%\\", "größe", "a=20b", "..", "x" * 120]


@pytest.fixture(params=["memory", "table"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield InMemoryStore()
        return
    tables = TableStore(request.getfixturevalue("azurite"), f"t{uuid.uuid4().hex}")
    yield tables
    await tables.close()


class TestEveryStore:
    async def test_nothing_is_there_at_first(self, store: Store):
        assert await store.load("gpt") is None
        assert await store.load_all() == {}

    @pytest.mark.parametrize("key", KEYS)
    async def test_what_is_saved_is_found_under_its_key(self, store: Store, key: str):
        saved = await store.save(key, {"schema": 1, "list": [1, 2.5, None, "é"]}, None)
        assert saved.document == {"schema": 1, "list": [1, 2.5, None, "é"]}
        assert await store.load(key) == saved
        assert await store.load_all() == {key: saved}

    async def test_every_version_has_its_own_etag(self, store: Store):
        first = await store.save("gpt", {"n": 1}, None)
        second = await store.save("gpt", {"n": 1}, first.etag)
        assert first.etag != second.etag

    async def test_only_one_of_two_writers_of_a_version_wins(self, store: Store):
        first = await store.save("gpt", {"n": 1}, None)
        await store.save("gpt", {"n": 2}, first.etag)
        with pytest.raises(Conflict):
            await store.save("gpt", {"n": 3}, first.etag)
        assert (await store.load_all())["gpt"].document == {"n": 2}

    async def test_a_new_document_replaces_nothing(self, store: Store):
        await store.save("gpt", {"n": 1}, None)
        with pytest.raises(Conflict):
            await store.save("gpt", {"n": 2}, None)

    async def test_a_document_that_has_gone_is_a_conflict(self, store: Store):
        saved = await store.save("gpt", {"n": 1}, None)
        await store.set_aside("gpt", saved.etag, "test")
        with pytest.raises(Conflict):
            await store.save("gpt", {"n": 2}, saved.etag)

    async def test_what_is_set_aside_is_not_seen_any_more(self, store: Store):
        saved = await store.save("gpt", {"n": 1}, None)
        other = await store.save("claude", {"n": 2}, None)
        await store.set_aside("gpt", saved.etag, "unreadable")
        assert await store.load_all() == {"claude": other}

    async def test_a_newer_version_is_not_set_aside_by_mistake(self, store: Store):
        first = await store.save("gpt", {"n": 1}, None)
        second = await store.save("gpt", {"n": 2}, first.etag)
        with pytest.raises(Conflict):
            await store.set_aside("gpt", first.etag, "unreadable")
        assert await store.load("gpt") == second

    async def test_a_large_document_survives_and_a_larger_one_is_refused(self, store: Store):
        large = {"text": "x" * (LARGEST - 20)}
        await store.save("gpt", large, None)
        held = await store.load("gpt")
        assert held is not None
        assert held.document == large
        with pytest.raises(TooLarge):
            await store.save("claude", {"text": "x" * LARGEST}, None)

    async def test_a_document_of_a_newer_build_is_marked(self, store: Store):
        await store.save("gpt", {"schema": SCHEMA + 1, "unheard": "of"}, None)
        held = await store.load("gpt")
        assert held is not None
        assert held.newer

    async def test_racing_updates_all_count(self, store: Store):
        def more(document: Any) -> Any:
            return {"n": (document or {"n": 0})["n"] + 1}

        await asyncio.gather(*(update(store, "count", more, attempts=40, sleep=brief) for _ in range(8)))
        held = await store.load("count")
        assert held is not None
        assert held.document == {"n": 8}


async def brief(seconds: float) -> None:
    await asyncio.sleep(0)


class TestUpdate:
    async def test_it_saves_only_a_change(self):
        store = InMemoryStore()
        first = await update(store, "gpt", lambda document: {"n": 1})
        assert await update(store, "gpt", lambda document: document) == first
        assert await update(store, "other", lambda document: None) is None

    async def test_it_leaves_the_document_of_a_newer_build_alone(self):
        store = InMemoryStore()
        newer = await store.save("gpt", {"schema": SCHEMA + 1}, None)
        assert await update(store, "gpt", lambda document: {"n": 1}) == newer
        assert await store.load("gpt") == newer

    async def test_it_gives_up_after_some_conflicts_waiting_longer_each_time(self):
        store, waits = Contended(), []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        with pytest.raises(Conflict):
            await update(store, "gpt", lambda document: {"n": 1}, random=lambda: 1.0, sleep=sleep)
        assert waits == sorted(set(waits))
        assert len(waits) == 4


class Contended(InMemoryStore):
    """Somebody else is always faster."""

    async def save(self, key: str, document: Any, etag: str | None) -> Versioned:
        raise Conflict(key)
