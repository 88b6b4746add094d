"""Kept answers as they leave the process: packed, and sealed with a key that only who asks the same can know.

The key follows from the request and from who may share its answer. Who reads the store finds neither requests nor
answers there, and who writes to it cannot give an answer to a request that he does not know.
"""

from __future__ import annotations

import os
import zlib
from base64 import b64decode, b64encode
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from routing.cache import LARGEST, Kept
from routing.features import AskedFacts
from routing.types import Decision

NONCE = 12  # bytes; drawn at random, and a key seals but a few answers
LONGEST = 2 * LARGEST + 256 * 1024  # bytes of what is unpacked: an answer as JSON, and its decision


def seal(kept: Kept, key: bytes, name: str) -> str:
    """The answer as text. `name` is where it will lie: anywhere else it cannot be opened."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # loaded where answers are shared only

    pieces = [piece.decode("latin-1") for piece in kept.pieces]
    told = [pieces, asdict(kept.decision), kept.model, kept.dropped, kept.output_limit]
    packed = zlib.compress(to_json(told, inf_nan_mode="constants"), 1)
    nonce = os.urandom(NONCE)
    return b64encode(nonce + AESGCM(key).encrypt(nonce, packed, name.encode())).decode()


def unseal(text: str, key: bytes, name: str) -> Kept | None:
    """The answer; None for what is not one, or one of another build."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        sealed = b64decode(text, validate=True)
        packed = AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], name.encode())
        pieces, decision, model, dropped, limit = from_json(_unpacked(packed))
        given = tuple(piece.encode("latin-1") for piece in pieces)
        return Kept(given, _decision(decision), model, tuple(dropped), limit)
    except (InvalidTag, ValidationError, ValueError, TypeError, AttributeError, KeyError, zlib.error):
        return None


def _unpacked(packed: bytes) -> bytes:
    """Raises ValueError for more than any answer is."""
    unpacking = zlib.decompressobj()
    whole = unpacking.decompress(packed, LONGEST)
    if not unpacking.eof:
        raise ValueError("too long, or cut")
    return whole


def _decision(told: dict[str, Any]) -> Decision:
    """Raises ValidationError and KeyError for one of a build that says other things."""
    decisions, facts = _adapters()
    decision: Decision = decisions.validate_python(told)
    return replace(decision, facts=facts.validate_python(told["facts"]))


@cache
def _adapters() -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    """Of a decision, and of the facts in it. Takes 50 ms to make."""
    return TypeAdapter(Decision), TypeAdapter(AskedFacts)
