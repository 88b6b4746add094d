"""The package to publish: what .funcignore leaves of this folder, as a zip. `python3 -m scripts.package FILE.zip`

Two packages of the same files are equal byte by byte. With `--built`, what requirements.txt names is in it too, for
Linux and the Python of the cloud, so that Azure has nothing to build.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
SAME_TIME = (2020, 1, 1, 0, 0, 0)
READABLE = 0o644 << 16
CLOUD = (3, 13)  # the Python that infra/ asks for
LIBRARIES = PurePosixPath(".python_packages/lib/site-packages")  # where the Functions host looks for them


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


def write(target: Path, root: Path = ROOT, libraries: Path | None = None) -> int:
    """Writes the package, with a folder of `libraries` if there is one; how many files it holds."""
    found = {path.as_posix(): root / path for path in contents(root) if (root / path).resolve() != target.resolve()}
    if libraries is not None:
        files = sorted(path for path in libraries.rglob("*") if path.is_file() and path.suffix != ".pyc")
        found |= {(LIBRARIES / path.relative_to(libraries).as_posix()).as_posix(): path for path in files}
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as package:
        for name, path in found.items():
            entry = zipfile.ZipInfo(name, SAME_TIME)
            entry.external_attr, entry.compress_type = READABLE, zipfile.ZIP_DEFLATED
            package.writestr(entry, path.read_bytes())
    return len(found)


def install(requirements: Path, folder: Path) -> None:
    """Installs for the cloud, not for this machine. Raises CalledProcessError."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    cloud = ["--only-binary=:all:", "--python-version", ".".join(map(str, CLOUD)), "--implementation", "cp"]
    linux = ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"]
    subprocess.run([*pip, *cloud, *linux, "--target", str(folder), "--requirement", str(requirements)], check=True)


def main() -> None:
    match sys.argv[1:]:
        case [name] if not name.startswith("-"):
            files = write(target := Path(name))
        case ["--built", name] if not name.startswith("-"):
            if sys.version_info[:2] != CLOUD:  # pip takes this Python's word for what a line of requirements.txt is for
                sys.exit(f"--built needs Python {CLOUD[0]}.{CLOUD[1]}, on which the cloud runs the app")
            with TemporaryDirectory() as folder:
                install(ROOT / "requirements.txt", Path(folder))
                files = write(target := Path(name), libraries=Path(folder))
        case _:
            sys.exit("usage: python3 -m scripts.package [--built] FILE.zip")
    print(f"{target}: {files} files, {target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
