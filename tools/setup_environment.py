"""Sets up what the other commands need: a virtual environment in .venv and Azurite in node_modules.

Runs on a plain Python with nothing installed. Does nothing, and fast, when nothing changed since the last time.
Exits 1 with one sentence when no Python is new enough or an installation fails. A missing npm is said and allowed,
except where the environment sets CI: there everything must be present.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import sys
from typing import NoReturn

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
NODE_MODULES = os.path.join(ROOT, "node_modules")
OLDEST, PREFERRED = (3, 11), (3, 13)
PROBE = "import sys, venv, ensurepip; print(sys.version_info[0], sys.version_info[1])"


def main() -> None:
    with open(os.path.join(ROOT, ".setup.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two commands started together set up once
        set_up_python()
        set_up_azurite()


def set_up_python() -> None:
    stamp = os.path.join(VENV, ".stamp")
    wanted = fingerprint("requirements.txt", "requirements-dev.txt")
    if read(stamp) == wanted and os.path.exists(os.path.join(VENV, "bin", "python")):
        return
    python, version = best_python()
    if not version_of(os.path.join(VENV, "bin", "python")):
        say(f"Creating .venv with Python {version[0]}.{version[1]} ({python})")
        run(python, "-m", "venv", "--clear", VENV)
    say("Installing the pinned requirements; the first time takes a minute or two")
    pip = (os.path.join(VENV, "bin", "python"), "-m", "pip", "--disable-pip-version-check", "install")
    run(*pip, "--progress-bar", "off", "-r", os.path.join(ROOT, "requirements-dev.txt"))
    write(stamp, wanted)


def set_up_azurite() -> None:
    stamp = os.path.join(NODE_MODULES, ".stamp")
    wanted = fingerprint("package.json", "package-lock.json")
    if read(stamp) == wanted:
        return
    if not (shutil.which("node") and shutil.which("npm")):
        missing("node and npm are not installed, so there is no Azurite (install nodejs and npm to have it).")
        return
    say("Installing Azurite, the stand-in for Azure Table Storage; the first time takes half a minute")
    try:
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error")
    except SystemExit:
        missing("npm could not install Azurite.")
        return
    write(stamp, wanted)


def best_python() -> tuple[str, tuple[int, int]]:
    """The preferred Python if there is one, otherwise the newest that is new enough."""
    found: dict[tuple[int, int], str] = {}
    for python in candidates():
        version = version_of(python)
        if version and version >= OLDEST:
            found.setdefault(version, python)
            if version == PREFERRED:
                break
    if not found:
        if named := os.environ.get("PYTHON"):
            fail(f"PYTHON names {named}, which is no Python 3.11 or newer with venv and ensurepip.")
        own = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if sys.version_info[:2] >= OLDEST:
            fail(f"This Python {own} lacks venv and ensurepip (on Debian and Ubuntu: apt-get install python3-venv).")
        fail(f"Python 3.11 or newer is needed, 3.13 preferred; this is {own}. Install one or name it in PYTHON.")
    version = PREFERRED if PREFERRED in found else max(found)
    return found[version], version


def candidates() -> list[str]:
    if os.environ.get("PYTHON"):
        return [os.environ["PYTHON"]]
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    names = [f"python3.{minor}" for minor in (13, 14, 12, 11)]
    installed = [path for name in names for path in [shutil.which(name)] if path]
    by_pyenv = [
        path
        for name in names
        for path in sorted(glob.glob(os.path.join(pyenv, "versions", name[6:] + "*", "bin", name)), reverse=True)
    ]
    return installed + by_pyenv + [sys.executable]


def version_of(python: str) -> tuple[int, int] | None:
    """(major, minor) of an interpreter that runs and can make virtual environments; None of any other."""
    try:
        done = subprocess.run([python, "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def fingerprint(*names: str) -> str:
    digest = hashlib.sha256()
    for name in names:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def run(*command: str) -> None:
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        fail("This failed: " + " ".join(command))


def missing(sentence: str) -> None:
    if os.environ.get("CI"):
        fail(sentence)
    say(sentence + " State is kept in memory, and the tests that need Azurite are skipped.")


def say(sentence: str) -> None:
    print("setup: " + sentence, file=sys.stderr, flush=True)


def fail(sentence: str) -> NoReturn:
    say(sentence)
    raise SystemExit(1)


def read(path: str) -> str:
    with contextlib.suppress(OSError), open(path) as file:
        return file.read()
    return ""


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("Interrupted; the next time goes on from here.")
