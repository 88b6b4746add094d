"""Setting up says what it does and what is missing, and does nothing the second time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tools" / "setup_environment.py"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that needs no package, in a place of its own."""
    (tmp_path / "tools").mkdir()
    shutil.copy(SCRIPT, tmp_path / "tools")
    for name in ("requirements.txt", "requirements-dev.txt", "package.json", "package-lock.json"):
        (tmp_path / name).touch()
    return tmp_path


def set_up(project: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up where neither npm nor another Python can be found."""
    bare = {"PATH": "/nowhere", "HOME": str(project), "PYTHON": sys.executable, **environment}
    kept = {name: value for name, value in os.environ.items() if name.startswith("COV")}
    command = [sys.executable, str(project / "tools" / "setup_environment.py")]
    return subprocess.run(command, env={**kept, **bare}, capture_output=True, text=True, timeout=60, check=False)


def test_without_npm_the_first_run_makes_the_environment_and_the_second_does_nothing(project):
    first = set_up(project)
    assert first.returncode == 0
    assert "setup: Creating .venv with Python" in first.stderr
    assert "setup: node and npm are not installed" in first.stderr
    stamp = project / ".venv" / ".stamp"
    made = stamp.stat().st_mtime_ns
    second = set_up(project)
    assert (second.returncode, "Creating" in second.stderr, stamp.stat().st_mtime_ns) == (0, False, made)


def test_a_python_that_is_named_and_will_not_do_is_named_again(project):
    done = set_up(project, PYTHON="/nowhere/python")
    sentence = "setup: PYTHON names /nowhere/python, which is no Python 3.11 or newer with venv and ensurepip.\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def test_a_python_without_venv_says_which_package_is_missing(project):
    hidden = project / "hidden"
    hidden.mkdir()
    (hidden / "ensurepip.py").write_text("raise ImportError('as on a fresh Debian')")
    done = set_up(project, PYTHON="", PYTHONPATH=str(hidden))
    assert done.returncode == 1
    assert "lacks venv and ensurepip (on Debian and Ubuntu: apt-get install python3-venv)" in done.stderr


@pytest.mark.parametrize("options", [("PYTHON=/nowhere/python",), ()], ids=["as an option", "in the environment"])
def test_make_hands_on_which_python_to_use(project, options):
    shutil.copy(ROOT / "Makefile", project)
    environment = {**os.environ, "PYTHON": "/nowhere/python"}
    done = subprocess.run(
        ["make", "setup", *options], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("setup: PYTHON names /nowhere/python")


def test_in_ci_a_missing_npm_is_an_error(project):
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").symlink_to(sys.executable)
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # the SHA-256 of two empty files
    (project / ".venv" / ".stamp").write_text(nothing)
    done = set_up(project, CI="true")
    assert (done.returncode, done.stderr) == (
        1,
        "setup: node and npm are not installed, so there is no Azurite (install nodejs and npm to have it).\n",
    )
