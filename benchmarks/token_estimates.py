"""How far token estimates are off, and how long they take: `python -m benchmarks.token_estimates [FILE ...]`.

Without files: the samples of the tests, with the counts recorded there. With files: each text file in pieces of 4,000
characters, counted by the o200k tokenizer (`pip install bpe-openai==0.1.4`, for this only).
"""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

from routing.tokens import estimate

SAMPLES = Path(__file__).resolve().parent.parent / "tests" / "token_samples.toml"
PIECE = 4_000  # characters
SIZES = (6_000, 24_000, 100_000, 1_000_000)
RUNS = 15


def main(files: list[str]) -> None:
    for kind, errors in _of_files(files) if files else _of_samples():
        near = [sum(abs(error) <= limit for error in errors) / len(errors) for limit in (0.1, 0.2)]
        mean = sum(errors) / len(errors)
        print(f"{kind:<40} {len(errors):>5} {mean:>+8.1%} mean {near[0]:>6.0%} within 10 % {near[1]:>6.0%} within 20 %")
    for size in SIZES:
        print(f"{size:>9,} characters: {_milliseconds(size):.3f} ms")


def _of_samples() -> Iterator[tuple[str, list[float]]]:
    for sample in tomllib.loads(SAMPLES.read_text(encoding="utf-8"))["sample"]:
        yield sample["kind"], [estimate(sample["text"]) / sample["tokens"] - 1]


def _of_files(files: list[str]) -> Iterator[tuple[str, list[float]]]:
    import bpe_openai  # type: ignore[import-not-found,unused-ignore]  # only where it was installed for this

    tokenizer = bpe_openai.get_encoding("o200k_base")
    for name in files:
        text = Path(name).read_text(encoding="utf-8", errors="replace")
        pieces = [piece for start in range(0, len(text), PIECE) if (piece := text[start : start + PIECE])]
        yield name[-40:], [estimate(piece) / len(tokenizer.encode(piece)) - 1 for piece in pieces]


def _milliseconds(size: int) -> float:
    """The least of several runs over English prose."""
    prose: str = tomllib.loads(SAMPLES.read_text(encoding="utf-8"))["sample"][0]["text"]
    text = (prose * (size // len(prose) + 1))[:size]
    spent = []
    for _ in range(RUNS):
        began = time.perf_counter()
        estimate(text)
        spent.append(time.perf_counter() - began)
    return min(spent) * 1e3


if __name__ == "__main__":
    main(sys.argv[1:])
