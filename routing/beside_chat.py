"""How the endpoints beside chat put their requests to a provider, which takes them as they are or not at all."""

from __future__ import annotations

from routing.dialects import Dialect
from routing.providers.base import Provider, Reply, Stream
from routing.requests import CompletionRequest, EmbeddingRequest
from routing.types import Target
from routing.wire import Asking


class _Embeddings(Dialect):
    async def chat(self, provider: Provider, target: Target, request: Asking) -> Reply:
        assert isinstance(request, EmbeddingRequest)
        return await provider.embed(target, request)


class _Completions(Dialect):
    async def chat(self, provider: Provider, target: Target, request: Asking) -> Reply:
        assert isinstance(request, CompletionRequest)
        return await provider.complete(target, request)

    async def stream(self, provider: Provider, target: Target, request: Asking) -> Stream:
        assert isinstance(request, CompletionRequest)
        return await provider.complete_stream(target, request)


EMBEDDINGS, COMPLETIONS = _Embeddings(), _Completions()
