"""A reply of vectors, read only as deep as needed to know that it answers what was asked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from routing.errors import BadReply, NotFound
from routing.requests import EmbeddingRequest

_FLOAT = 4  # bytes


def check_vectors(reply: Mapping[str, Any], request: EmbeddingRequest) -> None:
    """One vector for each input, of the length asked for.

    Raises BadReply, and NotFound for a model that overlooks `dimensions`: its vectors would spoil the caller's index.
    """
    data = reply.get("data")
    if not isinstance(data, list) or len(data) != len(request.inputs):
        raise BadReply("The provider's reply does not hold one vector for each input.")
    if request.dimensions is not None and _length(data[0]) != request.dimensions:
        message = "The target's model does not make vectors of the length asked for."
        raise NotFound(message, code="provider_ignores_dimensions", param="dimensions")


def _length(entry: Any) -> int:
    """Numbers in a vector, which is a list of them, or their bytes in base64."""
    vector = entry.get("embedding") if isinstance(entry, dict) else None
    if isinstance(vector, list):
        return len(vector)
    try:
        return len(base64.b64decode(vector if isinstance(vector, str) else "")) // _FLOAT
    except binascii.Error:
        raise BadReply("The provider's reply holds a vector that cannot be read.") from None
