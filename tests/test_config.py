"""The routes file: what is taken, and every refusal word for word with its path."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest

from routing import config
from routing.config import Config
from routing.errors import Misconfigured, UnknownModel
from routing.types import TASK_KINDS, Price
from tools import schema

ROOT = Path(__file__).resolve().parent.parent
GOOD = """
[providers.p]
type = "openai"
[targets.a]
provider = "p"
model = "m"
[targets.b]
provider = "p"
model = "n"
[routes.auto]
targets = ["a", "b"]
"""
KINDS = ", ".join(f"'{kind}'" for kind in TASK_KINDS)
NAMES = "names are letters, digits, '.', '_' and '-', at most 63, and begin with a letter or digit"
REFERENCE = "write a reference to the secret, env:NAME or keyvault:name, never the secret itself"


def parsed(text: str, **environment: str) -> Config:
    return config.parse(text, environment)


def errors(text: str, **environment: str) -> list[str]:
    with pytest.raises(Misconfigured) as caught:
        parsed(text, **environment)
    return list(caught.value.errors)


# --- refusals: what is added to a good file, and the one thing said about it

REFUSALS = [
    ("an unknown table", "[route.x]", "route: unknown key; did you mean 'routes'?"),
    ("an unknown key", "[server]\nmax_body = 5", "server.max_body: unknown key; did you mean 'max_body_bytes'?"),
    ("a key like no other", "[server]\nqqq = 5", "server.qqq: unknown key"),
    ("a key of a rule", "[breaker]\nopen_second = 5", "breaker.open_second: unknown key; did you mean 'open_seconds'?"),
    (
        "a key of a route's rule",
        '[routes.r]\ntargets = ["a"]\nretry = { retry = 1 }',
        "routes.r.retry.retry: unknown key; did you mean 'retries'?",
    ),
    (
        "an unknown provider type",
        '[providers.q]\ntype = "opena"',
        'providers.q.type: no provider type "opena"; types are ',
    ),
    (
        "a provider type that is no text",
        "[providers.q]\ntype = 3",
        'providers.q.type: no provider type "3"; types are ',
    ),
    ("no provider type", "[providers.q]", "providers.q.type: is missing"),
    ("a provider that is no table", '[providers]\nq = "openai"', None),
    ("no endpoint", '[providers.q]\ntype = "azure_openai"\nkey = "env:K"', "providers.q.endpoint: is missing"),
    (
        "no way in",
        '[providers.q]\ntype = "azure_openai"\nendpoint = "https://x"',
        'providers.q: needs key = "keyvault:name" or "env:NAME", or auth = "identity"',
    ),
    (
        "two ways in",
        '[providers.q]\ntype = "azure_openai"\nendpoint = "https://x"\nkey = "env:K"\nauth = "identity"',
        'providers.q: has both a key and auth = "identity"; keep one',
    ),
    (
        "an unknown way in",
        '[providers.q]\ntype = "azure_openai"\nendpoint = "https://x"\nauth = "magic"',
        "providers.q.auth: Input should be 'key' or 'identity'",
    ),
    (
        "no address",
        '[providers.q]\ntype = "openai"\nbase_url = "example.org"',
        "providers.q.base_url: Input should be a valid URL, relative URL without a base",
    ),
    (
        "an address of another kind",
        '[providers.q]\ntype = "openai"\nbase_url = "ftp://example.org"',
        "providers.q.base_url: URL scheme should be 'http' or 'https'",
    ),
    ("a literal key", '[providers.q]\ntype = "openai"\nkey = "sk-verysecret"', f"providers.q.key: {REFERENCE}"),
    ("a literal caller's key", '[callers.c]\nkey = "sk-verysecret"', f"callers.c.key: {REFERENCE}"),
    ("a key behind blanks", '[callers.c]\nkey = " env:K"', f"callers.c.key: {REFERENCE}"),
    ("a caller without a key", "[callers.c]", "callers.c: needs key or keys, or an app role under [entra.roles]"),
    (
        "an unknown role",
        '[callers.c]\nkey = "env:K"\nrole = "boss"',
        "callers.c.role: Input should be 'user' or 'admin'",
    ),
    (
        "one key for two",
        '[callers.c]\nkey = "env:K"\n[callers.d]\nkey = "env:K"',
        "callers.d.key: callers.c has the same key",
    ),
    ("a bad name", '[callers."-c"]\nkey = "env:K"', f"callers.-c: {NAMES}"),
    ("a name with a blank", '[callers."c d"]\nkey = "env:K"', f'callers."c d": {NAMES}'),
    (
        "an unknown provider",
        '[targets.c]\nprovider = "q"\nmodel = "m"',
        'targets.c.provider: no provider "q"; providers are p',
    ),
    ("no model", '[targets.c]\nprovider = "p"', "targets.c.model: is missing"),
    (
        "an empty model",
        '[targets.c]\nprovider = "p"\nmodel = ""',
        "targets.c.model: String should have at least 1 character",
    ),
    (
        "a number in quotes",
        '[targets.c]\nprovider = "p"\nmodel = "m"\ncontext = "5"',
        "targets.c.context: Input should be a valid integer",
    ),
    (
        "an unknown feature",
        '[targets.c]\nprovider = "p"\nmodel = "m"\nsupports = ["tools", "magic"]',
        "targets.c.supports[1]: Input should be 'tools', 'vision', 'audio', 'json_schema', 'embeddings' or "
        "'completions'",
    ),
    (
        "half a price",
        '[targets.c]\nprovider = "p"\nmodel = "m"\nprice = { input = 1 }',
        "targets.c.price.output: is missing",
    ),
    (
        "a price of nothing",
        '[targets.c]\nprovider = "p"\nmodel = "m"\nprice = { input = nan, output = 1 }',
        "targets.c.price.input: Input should be a finite number",
    ),
    (
        "a quality beyond the scale",
        '[targets.c]\nprovider = "p"\nmodel = "m"\nquality = { planning = 1.5 }',
        "targets.c.quality.planning: Input should be less than or equal to 1",
    ),
    (
        "a quality at nothing we know",
        '[targets.c]\nprovider = "p"\nmodel = "m"\nquality = { cooking = 1 }',
        f"targets.c.quality.cooking: Input should be {KINDS} or 'default'",
    ),
    (
        "no targets",
        "[routes.r]\ntargets = []",
        "routes.r.targets: List should have at least 1 item after validation, not 0",
    ),
    ("a route without targets", "[routes.r]", "routes.r.targets: is missing"),
    (
        "an unknown target",
        '[routes.r]\ntargets = ["a", "sonnet"]',
        'routes.r.targets[1]: no target "sonnet"; targets are a, b',
    ),
    ("a target twice", '[routes.r]\ntargets = ["a", "b", "a"]', 'routes.r.targets[2]: "a" stands there twice'),
    (
        "a task's target outside the route",
        '[routes.r]\ntargets = ["a"]\n[routes.r.tasks]\nplanning = ["a", "b"]',
        'routes.r.tasks.planning[1]: "b" is not among the targets of this route',
    ),
    (
        "a task's target that is nowhere",
        '[routes.r]\ntargets = ["a"]\n[routes.r.tasks]\nplanning = ["z"]',
        'routes.r.tasks.planning[0]: "z" is not among the targets of this route',
    ),
    (
        "a task's target twice",
        '[routes.r]\ntargets = ["a"]\n[routes.r.tasks]\nplanning = ["a", "a"]',
        'routes.r.tasks.planning[1]: "a" stands there twice',
    ),
    ("a route named like a target", '[routes.a]\ntargets = ["b"]', "routes.a: a target has the same name"),
    (
        "a deadline beyond the load balancer's",
        '[routes.r]\ntargets = ["a"]\ndeadline_seconds = 230',
        "routes.r.deadline_seconds: Input should be less than 220",
    ),
    (
        "an endless attempt",
        '[routes.r]\ntargets = ["a"]\nattempt_seconds = inf',
        "routes.r.attempt_seconds: Input should be a finite number",
    ),
    (
        "patience that is no number",
        '[routes.r]\ntargets = ["a"]\nretry = { patience_seconds = nan }',
        "routes.r.retry.patience_seconds: Input should be a finite number",
    ),
    (
        "a rule at odds with itself",
        "[breaker]\nopen_seconds = 400",
        "breaker: max_open_seconds 300.0 is below open_seconds 400.0",
    ),
    (
        "an alias to nowhere",
        '[aliases]\n"gpt-4.1" = "z"',
        'aliases."gpt-4.1": no route or target "z"; routes and targets are auto, a, b',
    ),
    ("an alias that is a target", '[aliases]\na = "b"', "aliases.a: a route or target has the same name"),
    ("an alias that is a route", '[aliases]\nauto = "b"', "aliases.auto: a route or target has the same name"),
    ("an alias that is no text", "[aliases]\nx = 3", "aliases.x: Input should be a valid string"),
]


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_a_refusal_says_where_and_what(text: str, said: str | None) -> None:
    (found,) = errors(f"{GOOD}\n{text}" if said else text)
    if said is None:
        said = "providers.q: should be a table"
    assert found.startswith(said) if said.endswith("types are ") else found == said


def test_an_unknown_provider_type_lists_those_that_exist() -> None:
    (found,) = errors('[providers.q]\ntype = "opena"')
    assert {"openai", "azure_openai", "ollama"} <= set(found.rpartition("types are ")[2].split(", "))


def test_without_any_target_a_route_says_so() -> None:
    assert errors('[routes.r]\ntargets = ["x"]') == ['routes.r.targets[0]: no target "x"; targets are not defined yet']


def test_all_errors_are_told_at_once() -> None:
    text = """
    [providers.p]
    type = "openai"
    base_url = "env:UNSET"
    key = "sk-verysecret"
    [targets.a]
    provider = "q"
    model = 3
    [routes.auto]
    targets = ["a", "b"]
    deadline = 5
    [aliases]
    x = "y"
    """
    assert set(errors(text)) == {
        "providers.p.base_url: the app setting UNSET is not set",
        f"providers.p.key: {REFERENCE}",
        'targets.a.provider: no provider "q"; providers are p',
        "targets.a.model: Input should be a valid string",
        'routes.auto.targets[1]: no target "b"; targets are a',
        "routes.auto.deadline: unknown key; did you mean 'deadline_seconds'?",
        'aliases.x: no route or target "y"; routes and targets are auto, a',
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[providers.q]\ntype = "azure_openai"\napi_version = "latest"',
            {
                "providers.q.endpoint: is missing",
                "providers.q.api_version: String should match pattern '^\\d{4}-\\d{2}-\\d{2}(-preview)?$'",
                'providers.q: needs key = "keyvault:name" or "env:NAME", or auth = "identity"',
            },
        ),
        (
            '[providers.q]\ntype = "anthropic"\nversion = "2026-11-01"\nsampling = true\nmodel = "m"',
            {
                "providers.q.model: unknown key",
                "providers.q: sampling = true needs a version before 2026-10-21, which takes no temperature",
            },
        ),
        (
            '[callers.c]\nkey = "env:A"\nkeys = ["env:B"]\nrole = "root"',
            {"callers.c.role: Input should be 'user' or 'admin'", "callers.c: has both key and keys; keep keys"},
        ),
        (
            '[entra]\naudience = [""]\nroles = { r = "nobody" }',
            {
                "entra.audience[0]: String should have at least 1 character",
                "entra: needs either tenant, the directory's id, or issuer",
                'entra.roles.r: no caller "nobody"; callers are not defined yet',
            },
        ),
    ],
    ids=["azure", "anthropic", "caller", "entra"],
)
def test_what_keys_say_against_each_other_is_told_beside_what_is_wrong_with_each(text: str, said: set[str]) -> None:
    assert set(errors(text)) == said


@pytest.mark.parametrize(
    "text",
    [
        '[providers.q]\ntype = "openai"\nkey = "sk-verysecret"',
        '[providers.q]\ntype = "openai"\napi_key = "sk-verysecret"',
        '[providers.q]\ntype = "openai"\nkey = ["sk-verysecret"]',
        '[providers.q]\nkey = "sk-verysecret"',
        '[callers]\nc = "sk-verysecret"',
        '[callers.c]\nkey = "env:sk-verysecret"',
        'key = "sk-verysecret',
    ],
    ids=["as a key", "under another name", "in a list", "without a type", "in place of a table", "as env", "cut off"],
)
def test_a_literal_key_is_never_repeated(text: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parsed(text)
    logged = "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "verysecret" not in f"{caught.value.errors} {caught.value.body()} {logged}"


@pytest.mark.parametrize(
    "text",
    ["a = ", "[a]\n[a]", "a = [" * 3_000, "a = " + "9" * 5_000, "a = 1\ud7ff\x00"],
    ids=["no value", "twice", "too deep", "too long", "control character"],
)
def test_what_is_not_toml_is_refused_as_such(text: str) -> None:
    (found,) = errors(text)
    assert found.startswith("routes.toml: not valid TOML: ")


def test_invalid_toml_says_line_and_column() -> None:
    assert errors('[server]\nx = "') == [
        "routes.toml: not valid TOML: Unterminated string (at line 2, column 6, the end)"
    ]
    assert errors("a = 1\na = 2") == [
        "routes.toml: not valid TOML: Cannot overwrite a value (at line 2, column 6, the end)"
    ]
    assert errors("[server]\nx = ?") == ["routes.toml: not valid TOML: Invalid value (at line 2, column 5)"]


# --- addresses


def test_an_address_may_come_from_an_app_setting() -> None:
    text = '[providers.q]\ntype = "ollama"\nendpoint = "env:OLLAMA"'
    provider = parsed(text, OLLAMA="http://gpu:11434").file.providers["q"]
    assert str(getattr(provider, "endpoint", None)) == "http://gpu:11434/"


@pytest.mark.parametrize("environment", [{}, {"OLLAMA": ""}], ids=["absent", "empty"])
def test_an_address_whose_setting_is_not_set_is_named(environment: dict[str, str]) -> None:
    text = '[providers.q]\ntype = "ollama"\nendpoint = "env:OLLAMA"'
    assert errors(text, **environment) == ["providers.q.endpoint: the app setting OLLAMA is not set"]


def test_an_address_out_of_a_setting_is_checked_too() -> None:
    text = '[providers.q]\ntype = "ollama"\nendpoint = "env:OLLAMA"'
    (found,) = errors(text, OLLAMA="gpu")
    assert found == "providers.q.endpoint: Input should be a valid URL, relative URL without a base"


# --- what is taken


def test_an_empty_file_is_a_router_without_routes() -> None:
    loaded = parsed("")
    assert (dict(loaded.routes), dict(loaded.targets), list(loaded.references())) == ({}, {}, [])


@pytest.mark.parametrize(
    ("model", "route", "targets"),
    [("auto", "auto", "ab"), ("a", "a", "a"), ("gpt-4o", "auto", "ab"), ("mini", "b", "b")],
    ids=["a route", "a target", "an alias of a route", "an alias of a target"],
)
def test_a_model_names_a_route_a_target_or_an_alias(model: str, route: str, targets: str) -> None:
    found = parsed(f'{GOOD}\n[aliases]\n"gpt-4o" = "auto"\nmini = "b"').route(model)
    assert (found.name, "".join(target.name for target in found.targets)) == (route, targets)


def test_an_unknown_model_lists_what_exists() -> None:
    with pytest.raises(UnknownModel) as caught:
        parsed(GOOD).route("gpt-9" * 100)
    assert caught.value.message.endswith("; models are a, auto, b.")
    assert len(caught.value.message) < 200
    assert (caught.value.status, caught.value.param) == (404, "model")


def test_a_target_is_as_it_is_written() -> None:
    text = """
    [providers.p]
    type = "openai"
    [targets."gpt-4.1"]
    provider = "p"
    model = "m"
    context = 272_000
    supports = ["vision"]
    price = { input = 1.25, output = 10 }
    quality = { default = 0.9, planning = 1 }
    """
    target = parsed(text).targets["gpt-4.1"]
    assert (target.context, target.price) == (272_000, Price(1.25, 10.0))
    assert target.supports == {"vision"}
    assert target.quality == {"default": 0.9, "planning": 1.0}


def test_every_secret_reference_is_listed_with_its_path() -> None:
    text = '[providers.p]\ntype = "openai"\nkey = "keyvault:openai-key"\n[callers.c]\nkey = "env:K"'
    assert list(parsed(text).references()) == [("providers.p.key", "keyvault:openai-key"), ("callers.c.key", "env:K")]


# --- the file itself


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        config.load(tmp_path / "none.toml", {})
    (found,) = caught.value.errors
    assert found.endswith("none.toml: cannot be read: No such file or directory; ROUTER_CONFIG names the routes file")


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(Misconfigured, match="1 error") as caught:
        config.load(path, {})
    assert "it is not UTF-8" in caught.value.errors[0]


def test_the_mark_that_some_editors_write_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "routes.toml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert set(config.load(path, {}).targets) == {"a", "b"}


def test_the_routes_file_of_the_repository_is_good() -> None:
    assert config.load(ROOT / "routes.toml", {}).routes


def test_the_committed_schema_is_fresh() -> None:
    assert schema.PATH.read_text(encoding="utf-8") == schema.text(), "run: python -m tools.schema"


def test_the_schema_knows_every_table_and_forbids_the_rest() -> None:
    document = json.loads(schema.text())
    assert {"providers", "targets", "routes", "aliases", "callers"} <= set(document["properties"])
    assert document["additionalProperties"] is False
