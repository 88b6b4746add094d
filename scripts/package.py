"""The package to publish: what .funcignore leaves of this folder, as a zip. `python3 -m scripts.package FILE.zip`

Two packages of the same files are equal byte by byte.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
SAME_TIME = (2020, 1, 1, 0, 0, 0)
READABLE = 0o644 << 16


def patterns(root: Path) -> list[str]:
    """The lines of .funcignore. Raises ValueError for forms that the publishing tools read in different ways."""
    lines = [line.strip() for line in (root / ".funcignore").read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    for pattern in found:
        if pattern.startswith("!") or "**" in pattern:
            raise ValueError(
                f".funcignore: write {pattern!r} as plain names; exceptions and ** are not understood alike"
            )
    return found


def ignored(path: PurePosixPath, rules: Sequence[str], is_folder: bool) -> bool:
    """Whether a rule names this very path. Rules without a slash inside name it at any depth."""
    for rule in rules:
        if rule.endswith("/") and not is_folder:
            continue
        name = rule.strip("/")
        if fnmatchcase(str(path) if "/" in name else path.name, name):
            return True
    return False


def contents(root: Path = ROOT) -> list[Path]:
    """The files of the package, relative to `root`, in order."""
    rules = patterns(root)
    rules.append(".funcignore")
    return sorted(_left(root, root, rules))


def _left(folder: Path, root: Path, rules: Sequence[str]) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path).relative_to(root)
        is_folder = entry.is_dir(follow_symlinks=False)
        if ignored(PurePosixPath(path.as_posix()), rules, is_folder):
            continue
        if is_folder:
            yield from _left(Path(entry.path), root, rules)
        elif entry.is_file():
            yield path


def write(target: Path, root: Path = ROOT) -> int:
    """Writes the package; how many files it holds."""
    found = [path for path in contents(root) if (root / path).resolve() != target.resolve()]
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        for path in found:
            entry = zipfile.ZipInfo(path.as_posix(), SAME_TIME)
            entry.external_attr, entry.compress_type = READABLE, zipfile.ZIP_DEFLATED
            package.writestr(entry, (root / path).read_bytes())
    return len(found)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m scripts.package FILE.zip")
    target = Path(sys.argv[1])
    files = write(target)
    print(f"{target}: {files} files, {target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
