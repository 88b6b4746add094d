"""What is published: complete, small, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from scripts import package
from tests import clean_environment
from tests.conftest import need_worker_library

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 2_000_000  # bytes before packing
AT_THE_TOP = {
    "function_app.py",
    "host.json",
    "requirements.txt",
    "routes.toml",
    "routes.azure.toml",
    "routes.azure-regions.toml",
}
KINDS = {".py", ".json", ".txt", ".toml", ".gz", ".html", ".js", ".css", ".svg", ".ico", ".woff2", ".md"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked as the cloud does."""
    place = tmp_path_factory.mktemp("package")
    package.write(place / "router.zip")
    with zipfile.ZipFile(place / "router.zip") as packed:
        packed.extractall(place / "app")
    return place / "app"


def test_the_package_has_what_is_deployed_and_nothing_else(folder):
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert {str(path) for path in files if len(path.parts) == 1} == AT_THE_TOP
    assert {path.parts[0] for path in files if len(path.parts) > 1} == {"routing"}
    assert {path.suffix for path in files} <= KINDS


def test_every_module_of_the_router_is_in_the_package(folder):
    modules = {path.relative_to(ROOT) for path in ROOT.glob("routing/**/*.py")}
    assert modules == {path.relative_to(folder) for path in folder.glob("routing/**/*.py")}


def test_the_package_is_small(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < LARGEST


def test_the_package_holds_nothing_that_git_does_not_know(folder):
    """A file of settings or a cache that lies about would be published with the app."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    known = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"))
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} <= known


def test_the_same_files_make_the_same_package(tmp_path):
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    assert package.write(first) == package.write(second)
    assert first.read_bytes() == second.read_bytes()


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has what requirements.txt brings, and nothing of ours."""
    return clean_environment.make(tmp_path_factory.mktemp("clean"), ROOT / "requirements.txt")


def run(python: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "ROUTER_", "PY"))}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # the folder is the other tests' too
    command = [str(python), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_clean_environment_lacks_what_only_the_tests_need(clean_python, folder):
    assert run(clean_python, "-c", "import httpx, pydantic, azure.identity, fastapi", folder=folder).returncode == 0
    assert "No module named 'pytest'" in run(clean_python, "-c", "import pytest", folder=folder).stderr


def test_the_published_app_answers_in_a_clean_environment_through_the_real_worker_library(clean_python, folder):
    need_worker_library()
    done = run(clean_python, str(ROOT / "tests/served_package.py"), str(folder), folder=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["health"], told["status"]) == ({"status": "ok"}, 200), done.stderr
    assert told["answer"]["choices"][0]["message"]["content"]
    assert [file for file in told["from"] if not Path(file).is_relative_to(folder)] == []


def test_a_built_package_has_the_libraries_where_the_host_looks_for_them(tmp_path):
    wheel = tmp_path / "lib_of_ours-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"
    info = "lib_of_ours-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("lib_of_ours.py", "ANSWER = 42")
        packed.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: lib-of-ours\nVersion: 1.0\n")
        packed.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp313-cp313-manylinux_2_28_x86_64\n"
        )
        packed.writestr(f"{info}/RECORD", "")
    (tmp_path / "requirements.txt").write_text(f"{wheel}\n")
    package.install(tmp_path / "requirements.txt", tmp_path / "libraries")
    package.write(tmp_path / "router.zip", libraries=tmp_path / "libraries")
    with zipfile.ZipFile(tmp_path / "router.zip") as packed:
        assert packed.read(".python_packages/lib/site-packages/lib_of_ours.py") == b"ANSWER = 42"
        assert "function_app.py" in packed.namelist()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in (
        "a.py",
        "notes.md",
        "lib/b.py",
        "lib/notes.md",
        "lib/__pycache__/b.pyc",
        "data/keep.txt",
        "data/drop.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def left(project: Path, *rules: str) -> list[str]:
    (project / ".funcignore").write_text("\n".join(["# what stays", "", *rules]))
    return [path.as_posix() for path in package.contents(project)]


def test_rules_name_files_and_folders_at_any_depth_or_one_path(project):
    assert left(project, "__pycache__/", "notes.md", "data/drop.txt") == ["a.py", "data/keep.txt", "lib/b.py"]


def test_a_rule_for_folders_leaves_files_of_that_name(project):
    (project / "lib/data").write_text("a file")
    assert left(project, "data/", "__pycache__/", "*.md") == ["a.py", "lib/b.py", "lib/data"]


@pytest.mark.parametrize("rule", ["!notes.md", "**/notes.md"])
def test_rules_that_the_publishing_tools_read_in_different_ways_are_refused(project, rule):
    with pytest.raises(ValueError, match="plain names"):
        left(project, rule)


AZ = """#!/usr/bin/env bash
echo "$*" >> "$ASKED"
case "$*" in
  *outputs.appName*) echo "$APP" ;;
  *outputs.endpoint*) echo https://router.example.com ;;
  *config-zip*)
    python3 -m zipfile --test "${@: -3:1}"
    if (($(grep --count config-zip "$ASKED") <= ${REFUSALS:-0})); then
      echo "${REFUSAL:-BlobUploadFailedException}" >&2
      exit 1
    fi ;;
esac
"""
PYTHON = """#!/usr/bin/env bash
echo "python $*" >> "$ASKED"
exec python3 -m zipfile --create "${@: -1}" /dev/null
"""
FUNC = """#!/usr/bin/env bash
echo "func $* in $PWD" >> "$ASKED"
"""
SLEEP = """#!/usr/bin/env bash
echo "sleep $*" >> "$ASKED"
"""
CURL = """#!/usr/bin/env bash
echo "$*" >> "$ASKED"
printf 200
"""


def publish(
    tmp_path: Path, app: str, *arguments: str, **given: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What scripts/publish.sh says, and what it asked of commands that stand in for az, func and curl."""
    for name, text in {"az": AZ, "curl": CURL, "func": FUNC, "sleep": SLEEP}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    asked = tmp_path / "asked"
    asked.touch()
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ASKED": str(asked), "APP": app, **given}
    command = [str(ROOT / "scripts/publish.sh"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return done, asked.read_text().splitlines()


def test_publishing_hands_over_the_package_to_be_built_there_and_waits_until_it_serves(tmp_path):
    done, asked = publish(tmp_path, "llm-router-x", "group")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("https://router.example.com serves.\n")
    [handed] = [line for line in asked if "config-zip" in line]
    assert "--resource-group group --name llm-router-x" in handed
    assert handed.endswith(".zip --build-remote true")
    assert asked[-1].endswith("https://router.example.com/health")


def test_publishing_waits_until_the_storage_account_knows_the_role_of_a_new_app(tmp_path):
    done, asked = publish(tmp_path, "llm-router-x", "group", REFUSALS="2")
    assert done.returncode == 0
    assert done.stderr.count("does not know the app's role yet") == 2
    assert [line.split()[0] for line in asked if "config-zip" in line or "sleep" in line] == [
        "functionapp", "sleep", "functionapp", "sleep", "functionapp",
    ]  # fmt: skip


@pytest.mark.parametrize(("refusals", "refusal", "tries"), [("99", "BlobUploadFailedException", 10), ("1", "Bad", 1)])
def test_publishing_gives_up_in_the_end_and_at_once_for_another_reason(tmp_path, refusals, refusal, tries):
    done, asked = publish(tmp_path, "llm-router-x", "group", REFUSALS=refusals, REFUSAL=refusal)
    assert done.returncode == 1
    assert refusal in done.stdout
    assert sum("config-zip" in line for line in asked) == tries


def test_a_package_that_is_built_here_is_not_built_there(tmp_path):
    (tmp_path / "python3.13").write_text(PYTHON)
    (tmp_path / "python3.13").chmod(0o755)
    done, asked = publish(tmp_path, "llm-router-x", "--built", "group")
    assert (done.returncode, done.stderr) == (0, "")
    assert next(line for line in asked if line.startswith("python")).startswith("python -m scripts.package --built /")
    [handed] = [line for line in asked if "config-zip" in line]
    assert handed.endswith(".zip --build-remote false")


def test_core_tools_publish_the_same_folder_to_be_built_there(tmp_path):
    done, asked = publish(tmp_path, "llm-router-x", "--func", "group")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "https://router.example.com serves.\n")
    [handed] = [line for line in asked if line.startswith("func")]
    assert handed == f"func azure functionapp publish llm-router-x --python --build remote in {ROOT}"
    assert not [line for line in asked if "config-zip" in line]


def test_publishing_without_a_deployment_says_what_to_do(tmp_path):
    done, asked = publish(tmp_path, "", "group", "other")
    assert done.returncode == 1
    assert "deploy infra/main.bicep first" in done.stderr
    assert not [line for line in asked if "config-zip" in line]


@pytest.mark.parametrize("arguments", [(), ("--func",), ("--help",), ("a", "b", "c")], ids=str)
def test_publishing_without_a_group_says_how_to_use_it(tmp_path, arguments):
    done, asked = publish(tmp_path, "", *arguments)
    assert (done.returncode, asked) == (2, [])
    assert done.stderr.startswith("usage: scripts/publish.sh [--func | --built] RESOURCE_GROUP")
