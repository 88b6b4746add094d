"""The order of the house: who may import whom, how long a module gets, and what an import of the app may load."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_MODULE = 350  # lines

# From the inside out: a module imports its own ring or one before it. A new module is added here.
RINGS = {
    "types": """
        chance contradictions documents errors fresh requests settings telemetry_names trace types wire
    """,
    "rules": """
        board breaker breaker_shared breaker_state limit_words limits pricing retries savings strategies tally
        task_model task_shape task_shots task_text task_words tasks tokens
    """,
    "state": """
        archive background bookkeeping cache callers decisions entra health instances keeper ledger ledger_store
        logs notices recorded recording secrets sharing slot statistics store telemetry usage
    """,
    "flow": """
        beside_chat broadcast catalogue completions config costs custom detector dialects failover features messages
        messages_content messages_request messages_stream metering planner quotes reading refusals relay remembering
        responses responses_content responses_items responses_request responses_stream router routes_file sealed
        shared_answers watching
    """,
    "edge": """
        answers api credentials events explain_api messages_api notices_api openai_api page responses_api selfcheck
        status upkeep usage_api wiring
    """,
}
ORDER = list(RINGS)
RING = {f"routing.{name}": ring for ring, names in RINGS.items() for name in names.split()}
IMPURE = {"asyncio", "time", "random", "os", "httpx", "pydantic"}
ADAPTERS = ("routing.providers", "routing.cloud")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in [*ROOT.glob("routing/**/*.py"), ROOT / "function_app.py"]}


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that `module` imports, at its top or inside a function, by its full name."""
    tree = ast.parse(MODULES[module].read_text())
    return frozenset(name for node in ast.walk(tree) for name in imported_by(node, module)) - {module}


def imported_by(node: ast.AST, module: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = absolute(node, module)
        for alias in node.names:
            name = f"{base}.{alias.name}"
            yield name if name in MODULES else base


def absolute(node: ast.ImportFrom, module: str) -> str:
    if not node.level:
        return node.module or ""
    is_package = MODULES[module].name == "__init__.py"
    parents = module.split(".")[: None if is_package and node.level == 1 else -node.level + is_package]
    return ".".join([*parents, node.module] if node.module else parents)


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ring_breaches(module: str) -> set[str]:
    """What `module`, which stands in a ring, imports of ours and may not."""
    allowed = ORDER[: ORDER.index(RING[module]) + 1]
    ours = {name for name in imports(module) if under(name, "routing") and name != "routing"}
    outward = {name for name in ours if name in RING and RING[name] not in allowed}
    providers = {name for name in ours if under(name, "routing.providers") and "flow" not in allowed}
    cloud = {name for name in ours if under(name, "routing.cloud") and module != "routing.wiring"}
    return outward | providers | cloud


def adapter_breaches(module: str) -> set[str]:
    """What a provider or a cloud adapter imports of ours outside its own folder and the types ring."""
    own = ".".join(module.split(".")[:2])
    ours = {name for name in imports(module) if under(name, "routing") and name != "routing"}
    return {name for name in ours if not under(name, own) and RING.get(name) != "types"}


RINGED = sorted(name for name in MODULES if under(name, "routing") and name != "routing" and not under(name, *ADAPTERS))
IN_ADAPTERS = sorted(name for name in MODULES if under(name, *ADAPTERS))


@pytest.mark.parametrize("module", RINGED)
def test_a_module_imports_its_own_ring_or_one_below(module):
    assert module in RING, f"say in RINGS in which ring {module} stands"
    assert ring_breaches(module) == set()


@pytest.mark.parametrize("module", IN_ADAPTERS)
def test_providers_and_cloud_import_only_the_types_ring(module):
    assert adapter_breaches(module) == set()


@pytest.mark.parametrize("module", [name for name in RINGED if RING.get(name) == "rules"])
def test_a_rule_is_pure(module):
    assert {name.partition(".")[0] for name in imports(module)} & IMPURE == set()


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"routing.chance"}))
def test_chance_comes_from_one_place(module):
    """Python's shared generator may be seeded by anybody, and then every instance would draw the same ids."""
    assert not any(under(name, "random") for name in imports(module))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_azure_is_imported_in_cloud_and_function_app_only(module):
    azure = {name for name in imports(module) if name.partition(".")[0] in {"azure", "azurefunctions", "opencensus"}}
    assert not azure or module == "function_app" or under(module, "routing.cloud")


def test_there_are_no_cycles():
    graph = {module: imports(module) & MODULES.keys() - {"routing"} for module in MODULES}
    assert set(graphlib.TopologicalSorter(graph).static_order()) >= set(MODULES) - {"routing"}


def test_what_is_deployed_imports_nothing_that_stays_at_home():
    home = {name for module in MODULES for name in imports(module) if under(name, "local", "tools", "tests")}
    assert home == set()


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    source = (
        "from routing import errors\nfrom .types import Caller\nimport httpx.x\ndef f():\n    from . import wire, _x\n"
    )
    (tmp_path / "seen.py").write_text(source)
    monkeypatch.setitem(MODULES, "routing.seen", tmp_path / "seen.py")
    assert imports("routing.seen") == {"routing.errors", "routing.types", "httpx.x", "routing.wire", "routing"}


@pytest.mark.parametrize(
    "path",
    [path for folder in ("routing", "local", "tools") for path in sorted((ROOT / folder).rglob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_module_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) < LONGEST_MODULE


def fresh_interpreter(code: str) -> str:
    """What `code` prints in a new interpreter, without the measuring of coverage, in the project's folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def loaded_by_the_app() -> set[str]:
    return set(fresh_interpreter("import sys, function_app; print(*sys.modules)").split())


@pytest.mark.parametrize(
    "package",
    [
        "azure.identity",
        "azure.data",
        "azure.keyvault",
        "opencensus",
        "openai",
        "anthropic",
        "opentelemetry.sdk",
        "aiohttp",
        "azure.monitor",
        "google.protobuf",
        "jwt",
    ],
)
def test_importing_the_app_does_not_load(package, loaded_by_the_app):
    assert "function_app" in loaded_by_the_app
    assert {name for name in loaded_by_the_app if under(name, package)} == set()


def test_what_the_app_needs_is_deployed_and_the_rest_stays_at_home():
    ignored = set((ROOT / ".funcignore").read_text().split())
    assert ignored >= {"local/", "tests/", "tools/", "benchmarks/", ".venv/", "node_modules/", "local.settings.json"}
    assert ignored.isdisjoint({"routing/", "function_app.py", "host.json", "requirements.txt", "routes.toml", "*.py"})


def test_the_lock_file_names_no_place_to_download_from():
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert all(package.get("integrity") for name, package in packages.items() if name)
    assert not [name for name, package in packages.items() if "resolved" in package]
