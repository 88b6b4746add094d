"""Chance from the operating system: ids stay different where something seeds Python's shared generator, or forks."""

from __future__ import annotations

import random as randomness

_source = randomness.SystemRandom()

random = _source.random  # a number in [0, 1)
bits = _source.getrandbits
