"""A virtual environment with what requirements.txt brings and nothing else, as the cloud makes one.

Its packages are those of this environment, linked: the same files as an installation would put there.
"""

from __future__ import annotations

import os
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make(folder: Path, requirements: Path) -> Path:
    """Its Python. Raises PackageNotFoundError when this environment lacks something that is required."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for name in required(requirements):
        _link(name, packages)
    return folder / "bin/python"


def required(requirements: Path) -> set[str]:
    """What the file names, and what that needs in turn."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    waiting = [(Requirement(line), "") for line in lines if line]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            waiting += _needs(requirement, seen)
    return {name for name, _ in seen}


def _needs(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[tuple[Requirement, str]]:
    """What a package needs, once for itself and once for each of its extras."""
    name = canonicalize_name(requirement.name)
    for extra in ("", *requirement.extras):
        if (name, extra) not in seen:
            seen.add((name, extra))
            yield from ((Requirement(each), extra) for each in distribution(name).requires or ())


def _link(name: str, packages: Path) -> None:
    found = distribution(name)
    for file in found.files or ():
        place = packages / file
        if ".." not in file.parts and not place.exists():  # scripts lie outside
            place.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(str(found.locate_file(file)), place)
