"""The templates agree with the code: settings, roles, tables, telemetry names, and what must never be written down."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from tree_sitter import Node

from routing import config
from routing.cloud import insights
from tests.bicep import Bicep, Failed, Module, Resource, evaluate, named, text, walk
from tests.queries import queries, strings_in_code

ROOT = Path(__file__).resolve().parent.parent
INFRA = ROOT / "infra"
MAIN = Bicep(INFRA / "main.bicep")
FILES = {path.stem: Bicep(path) for path in [INFRA / "main.bicep", *sorted(INFRA.glob("modules/*.bicep"))]}
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
ROUTES = sorted(ROOT.glob("routes.azure*.toml"))
WORKS = {"openAiLocation": "eastus2"}  # parameters that fit together
OWN_ROUTES = {"openAiLocation": "", "routesFile": "routes.toml"}
MINI = {"name": "gpt-5-mini", "model": "gpt-5-mini", "version": "1", "sku": "Standard", "capacity": 1}

READ_BY_THE_HOST = {
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsDisableHomepage",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
}
SET_BY_THE_PLATFORM = {"IDENTITY_ENDPOINT", "WEBSITE_SITE_NAME", "WEBSITE_INSTANCE_ID"}
OPTIONAL = {"OTEL_SERVICE_NAME"}
SET_BY_THE_CODE = {  # before it loads an exporter, so that it sends nothing about itself
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
}
REFUSED_BY_THE_PLAN = {
    "FUNCTIONS_WORKER_RUNTIME",
    "FUNCTIONS_EXTENSION_VERSION",
    "WEBSITE_RUN_FROM_PACKAGE",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "ENABLE_ORYX_BUILD",
    "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
    "WEBSITE_CONTENTSHARE",
    "WEBSITE_TIME_ZONE",
}
# file, variable -> role, its id, who gets it, on what
ROLES = {
    ("storage", "blobDataOwner"): (
        "Storage Blob Data Owner",
        "b7e6dc6d-f1e8-4753-8033-0f276bb0955b",
        "principalId",
        "account",
    ),
    ("storage", "tableDataContributor"): (
        "Storage Table Data Contributor",
        "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3",
        "principalId",
        "account",
    ),
    ("vault", "secretsUser"): (
        "Key Vault Secrets User",
        "4633458b-17de-408a-b874-0445c86b69e6",
        "principalId",
        "vault",
    ),
    ("vault", "secretsOfficer"): (
        "Key Vault Secrets Officer",
        "b86a8fe4-44ce-4948-aee5-eccb2c155cd7",
        "officerId",
        "vault",
    ),
    ("monitor", "metricsPublisher"): (
        "Monitoring Metrics Publisher",
        "3913510d-42f4-4e42-8a64-420c390055eb",
        "principalId",
        "insights",
    ),
    ("openai", "openAiUser"): (
        "Cognitive Services OpenAI User",
        "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd",
        "principalId",
        "account",
    ),
    ("signalr", "restOwner"): (
        "SignalR REST API Owner",
        "fd53cd77-2268-407a-8f46-7e7863d0f521",
        "principalId",
        "service",
    ),
}


VERSIONS = {
    "Microsoft.Authorization/roleAssignments": "2022-04-01",
    "Microsoft.CognitiveServices/accounts": "2025-06-01",
    "Microsoft.CognitiveServices/accounts/deployments": "2025-06-01",
    "Microsoft.Insights/actionGroups": "2023-01-01",
    "Microsoft.Insights/components": "2020-02-02",
    "Microsoft.Insights/diagnosticSettings": "2021-05-01-preview",  # there is no stable one
    "Microsoft.Insights/scheduledQueryRules": "2023-12-01",
    "Microsoft.Insights/workbooks": "2023-06-01",
    "Microsoft.KeyVault/vaults": "2024-11-01",
    "Microsoft.ManagedIdentity/userAssignedIdentities": "2024-11-30",
    "Microsoft.Network/privateDnsZones": "2024-06-01",
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": "2024-06-01",
    "Microsoft.Network/privateEndpoints": "2024-05-01",
    "Microsoft.Network/virtualNetworks": "2024-05-01",
    "Microsoft.OperationalInsights/workspaces": "2025-02-01",
    "Microsoft.SignalRService/signalR": "2024-03-01",
    "Microsoft.Storage/storageAccounts": "2025-01-01",
    "Microsoft.Storage/storageAccounts/tableServices/tables": "2025-01-01",
    "Microsoft.Web/serverfarms": "2024-04-01",
    "Microsoft.Web/sites": "2024-04-01",
}


def settings(**given: object) -> dict[str, str]:
    """The app settings that the template sets, each parameter standing for itself unless given."""
    app = FILES["app"]
    scope = app.scope({each.name: f"<{each.name}>" for each in app.parameters()} | EMPTY | given)
    return dict(evaluate(resource("app", "settings").property("properties"), scope))


def resource(file: str, symbol: str) -> Resource:
    [found] = [each for each in FILES[file].resources() if each.symbol == symbol]
    return found


EMPTY: dict[str, object] = {"secretSettings": {}, "extraSettings": {}}


def test_every_file_is_bicep():
    assert [fault for file in FILES.values() for fault in file.faults()] == []


def test_the_reader_sees_a_fault(tmp_path):
    (tmp_path / "broken.bicep").write_text("param name string =\nresource x 'A/b@1' = {\n")
    assert Bicep(tmp_path / "broken.bicep").faults()


def test_every_resource_type_is_one_we_know_at_one_version():
    used = {(each.type, each.version) for file in FILES.values() for each in file.resources() if each.version}
    assert used == set(VERSIONS.items())


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_every_parameter_output_and_type_is_described(file):
    assert file.described() == []


@pytest.mark.parametrize("parameter", MAIN.parameters(), ids=lambda parameter: parameter.name)
def test_every_parameter_has_limits(parameter):
    known = parameter.decorators.keys()
    kind = parameter.type
    if kind == "int":
        assert "allowed" in known or known >= {"minValue", "maxValue"}
    elif kind == "string":
        assert known & {"allowed", "maxLength"}
    elif kind.endswith("[]"):
        assert "maxLength" in known
    else:
        assert kind in ("bool", "object")


@pytest.mark.parametrize("parameter", MAIN.parameters(), ids=lambda parameter: parameter.name)
def test_every_parameter_is_used_and_documented(parameter):
    uses = [node for node in walk(MAIN.root) if node.type == "identifier" and text(node) == parameter.name]
    assert len(uses) > 1
    assert f"`{parameter.name}`" in (ROOT / "docs/deploy.md").read_text(encoding="utf-8")


def test_every_module_is_given_what_it_asks_for_and_nothing_else():
    for module in MAIN.modules():
        wanted = Bicep(INFRA / module.path).parameters()
        params = next(named(entry)[-1] for entry in named(module.body) if text(named(entry)[0]) == "params")
        given = {text(named(entry)[0]) for entry in named(params)}
        assert given == {each.name for each in wanted}, module.path


def test_the_parameters_file_names_parameters_and_fits_together():
    given = json.loads((INFRA / "main.parameters.json").read_text(encoding="utf-8"))["parameters"]
    assert given.keys() <= {each.name for each in MAIN.parameters()}
    scope = MAIN.scope({name: entry["value"] for name, entry in given.items()})
    assert (scope["refusals"], scope["place"]) == ([], "westeurope")


@pytest.mark.parametrize(
    ("given", "to_change"),
    [
        ({"openAiLocation": ""}, "openAiLocation"),
        ({"openAiLocation": "", "openAiSecondLocation": "westus"}, "openAiLocation"),
        ({"openAiSecondLocation": "East US 2"}, "openAiSecondLocation"),
        ({"openAiDeployments": []}, "openAiDeployments"),
        ({"routesFile": "routes.azure-regions.toml"}, "openAiSecondLocation"),
        ({"alwaysReady": 41}, "maximumInstances"),
        ({"zoneRedundant": True, "alwaysReady": 1}, "alwaysReady"),
        ({"publicEndpoint": False}, "privateNetwork"),
        ({"operatorAddresses": ["192.0.2.1"]}, "privateNetwork"),
        ({**OWN_ROUTES, "privateNetwork": True, "cloud": "AzureUSGovernment"}, "privateNetwork"),
        ({"cloud": "AzureUSGovernment"}, "openAiLocation"),
        ({"name": "my_router"}, "name"),
        ({"name": "1st-router"}, "name"),
        ({"privateNetwork": True, "networkPrefix": "10.1.0.0/24"}, "networkPrefix"),
        ({"privateNetwork": True, "operatorAddresses": ["192.0.2.1/32"]}, "operatorAddresses"),
        ({"openAiDeployments": [MINI, MINI | {"name": "gpt-5-nano"}, MINI]}, "openAiDeployments"),
        ({"openAiDeployments": [MINI]}, "openAiDeployments"),
        ({"alerts": False, "telemetry": "otlp"}, "extraSettings"),
        ({"logDailyGb": 0}, "logDailyGb"),
        ({"signalR": True}, "signalROrigins"),
        ({"signalROrigins": ["https://app.example.com"]}, "signalR"),
        ({"telemetry": "none"}, "alerts"),
        ({"alerts": False, "budgetUsdPerDay": 5}, "alerts"),
        ({"alerts": False, "alertEmails": ["a@example.com"]}, "alerts"),
        ({"secretsOfficer": "me@example.com"}, "secretsOfficer"),
        ({"extraSettings": {"ROUTER_TABLES": "x"}}, "extraSettings"),
        ({"secretSettings": {"A_KEY": "a"}, "extraSettings": {"A_KEY": "a"}}, "extraSettings"),
        ({"extraSettings": {"FUNCTIONS_WORKER_RUNTIME": "python"}}, "extraSettings"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_together_are_refused_saying_what_to_change(given, to_change):
    scope = MAIN.scope({**WORKS, **given})
    [told] = scope["refusals"]
    assert to_change in told
    with pytest.raises(Failed, match=re.escape(told)):
        scope["place"]


def test_all_that_does_not_fit_together_is_told_at_once():
    scope = MAIN.scope({**WORKS, "publicEndpoint": False, "signalR": True})
    assert len(scope["refusals"]) == 2


def test_no_refusal_is_untested():
    cases = sum(
        isinstance(mark.args[1], list) and len(mark.args[1])
        for mark in test_parameters_that_do_not_fit_together_are_refused_saying_what_to_change.pytestmark
    )
    [concat] = [node for name, node in MAIN.variables().items() if name == "refusals"]
    assert len(named(named(concat)[1])) == cases


def test_what_fits_together_is_not_refused():
    given = {
        "openAiSecondLocation": "swedencentral",
        "privateNetwork": True,
        "publicEndpoint": False,
        "operatorAddresses": ["192.0.2.1"],
        "zoneRedundant": True,
        "alwaysReady": 2,
        "signalR": True,
        "signalROrigins": ["https://app.example.com"],
        "alertEmails": ["a@example.com"],
        "budgetUsdPerDay": 5,
        "secretsOfficer": "0" * 36,
        "secretSettings": {"OPENAI_API_KEY": "openai"},
        "extraSettings": {"PROVIDER_URL": "https://models.example.com"},
        "name": "Router-2",
        "networkPrefix": "10.1.0.0/16",
        "logDailyGb": -1,
    }
    scope = MAIN.scope({**WORKS, **given})
    assert (scope["refusals"], scope["routesFile"]) == ([], "routes.azure-regions.toml")


def settings_read(source: str) -> set[str]:
    """The names that a module asks `environment` or `os.environ` for, also through a constant of its own."""
    tree = ast.parse(source)
    holders, found = re.compile(r"(^|[._])environ(ment)?$"), []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=holder, attr="get" | "setdefault"), args=[name, *_]):
                found.append((holder, name))
            case ast.Subscript(value=holder, slice=name):
                found.append((holder, name))
            case ast.Compare(left=name, ops=[ast.In() | ast.NotIn()], comparators=[holder]):
                found.append((holder, name))
    constants = _constants(tree)
    names = {constants.get(ast.unparse(name), name) for holder, name in found if holders.search(ast.unparse(holder))}
    return {str(name.value) for name in names if isinstance(name, ast.Constant)}


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The module's own, by name; two in one line as well."""
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    pairs = [(node.targets[0], node.value) for node in assigned]
    split = [
        pair
        for target, value in pairs
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        for pair in zip(target.elts, value.elts, strict=True)
    ]
    return {ast.unparse(target): value for target, value in [*pairs, *split]}


def test_every_setting_that_the_code_reads_is_set():
    files = [ROOT / "function_app.py", *ROOT.glob("routing/**/*.py")]
    read = {name for path in files for name in settings_read(path.read_text(encoding="utf-8"))}
    assert read >= {"ROUTER_CONFIG", "ROUTER_TABLES", "ROUTER_TELEMETRY", "ROUTER_KEY_VAULT", "AZURE_CLIENT_ID"}
    assert read <= settings().keys() | SET_BY_THE_PLATFORM | OPTIONAL
    words = {each for each in strings_in_code() if re.fullmatch(r"(ROUTER|AZURE|APPLICATIONINSIGHTS)_[A-Z_]+", each)}
    assert words <= settings().keys() | SET_BY_THE_CODE


def test_optional_settings_are_documented():
    pages = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/*.md"))
    assert [name for name in OPTIONAL if name not in pages] == []


def test_the_reader_of_code_sees_settings():
    source = """
A, B = "FIRST_SETTING", "SECOND_SETTING"
environment.get(A), self._environment[B], os.environ.setdefault("THIRD", ""), "FOURTH" in environment, body.get("no")
"""
    assert settings_read(source) == {"FIRST_SETTING", "SECOND_SETTING", "THIRD", "FOURTH"}


def test_telemetry_signs_in_with_the_identity():
    given = settings(identityClientId="the-id")
    assert set(given["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"].split(";")) == {
        "Authorization=AAD",
        "ClientId=the-id",
    }
    assert insights.credential(given) is not None
    assert insights.credential({}) is None


def test_package_and_key_vault_references_are_read_with_the_identity():
    site = resource("app", "site")
    assert text(site.property("properties", "keyVaultReferenceIdentity")) == "identityId"
    storage = evaluate(
        site.property("properties", "functionAppConfig", "deployment", "storage"),
        {"identityId": "the-identity", "packageContainer": "the-container"},
    )
    assert storage == {
        "type": "blobContainer",
        "value": "the-container",
        "authentication": {"type": "UserAssignedIdentity", "userAssignedIdentityResourceId": "the-identity"},
    }
    assert settings()["AzureWebJobsStorage__credential"] == "managedidentity"


def test_every_setting_is_read():
    addresses = {name for path in ROUTES for name in re.findall(r'"env:([A-Z_]+)"', path.read_text(encoding="utf-8"))}
    unread = settings().keys() - strings_in_code() - READ_BY_THE_HOST - addresses
    assert unread == set()


def test_the_main_template_knows_which_settings_are_its_own_and_which_the_plan_refuses():
    scope = MAIN.scope(WORKS)
    assert set(scope["ownSettings"]) == settings().keys() | {"AzureWebJobsStorage"}
    assert set(scope["refusedByPlan"]) == REFUSED_BY_THE_PLAN


def test_a_secret_setting_refers_to_the_latest_version_of_its_secret():
    given = settings(vaultUri="https://kv.vault.azure.net/", secretSettings={"OPENAI_API_KEY": "openai"})
    reference = "@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/openai/)"
    assert given["OPENAI_API_KEY"] == reference


def test_without_accounts_there_are_no_addresses_of_accounts():
    assert not [name for name in settings(openAiEndpoint="", openAiSecondEndpoint="") if name.startswith("AZURE_OPEN")]


@pytest.mark.parametrize("path", ROUTES, ids=lambda path: path.name)
def test_the_deployable_routes_files_are_sound_and_ask_the_models_that_are_deployed(path):
    addresses = {
        "AZURE_OPENAI_ENDPOINT": "https://a.example.com/",
        "AZURE_OPENAI_SECOND_ENDPOINT": "https://b.example.com/",
    }
    loaded = config.load(path, addresses)
    deployed = {each["name"] for each in MAIN.scope(WORKS)["openAiDeployments"]}
    assert {target.model for target in loaded.targets.values()} == deployed
    assert {provider.key for provider in loaded.file.providers.values()} == {None}  # by identity
    assert {reference for _, reference in loaded.references()} == {"keyvault:router-key"}


def assignment(file: Bicep, given: Resource) -> tuple[str, tuple[str, str, str]]:
    """Of a role assignment: the variable of its role, and the role's id, who gets it, and on what."""
    arguments = named(named(given.property("properties", "roleDefinitionId"))[1])
    variable = text(arguments[-1])
    role = evaluate(file.variables()[variable], {})
    return variable, (role, text(given.property("properties", "principalId")), text(given.property("scope")))


def test_every_role_is_one_we_know_with_its_principal_and_scope():
    assigned = {}
    for name, file in FILES.items():
        for each in file.resources():
            if each.type == "Microsoft.Authorization/roleAssignments":
                variable, what = assignment(file, each)
                assigned[name, variable] = what
    assert assigned == {place: tuple(rest) for place, (_, *rest) in ROLES.items()}


def test_every_role_is_documented():
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    assert [name for name, *_ in ROLES.values() if name not in page] == []


def names_in_code(*nodes: Node) -> set[str]:
    """Every name that is used there."""
    return {text(node) for each in nodes for node in walk(each) if node.type == "identifier"}


def known_late(module: Module) -> set[str]:
    """Of a module's parameters and variables, those whose value is known only when another resource stands."""
    runtime = re.compile(r"\.(properties|outputs)\b|\breference\(")
    params = next(named(entry)[-1] for entry in named(module.body) if text(named(entry)[0]) == "params")
    late = {text(named(entry)[0]) for entry in named(params) if runtime.search(text(named(entry)[-1]))}
    while more := {
        name
        for name, node in Bicep(INFRA / module.path).variables().items()
        if name not in late and names_in_code(node) & late
    }:
        late |= more
    return late


@pytest.mark.parametrize("module", MAIN.modules(), ids=lambda module: module.symbol)
def test_what_if_can_tell_which_resources_there_would_be(module):
    """It leaves out a module whose resources' names, conditions or loops hang on what is known only later."""
    late = known_late(module)
    for each in Bicep(INFRA / module.path).declared():
        assert not names_in_code(*each.existence()) & late, each.symbol


def test_the_reader_sees_what_is_known_late():
    [app] = [module for module in MAIN.modules() if module.symbol == "app"]
    assert known_late(app) >= {"identityClientId", "storageName", "insightsConnection"}
    [rules] = [each for each in FILES["alerts"].declared() if each.symbol == "alertRules"]
    assert names_in_code(*rules.existence()) >= {"rules", "filter", "name"}
    [people] = [each for each in FILES["alerts"].declared() if each.symbol == "people"]
    assert "emails" in names_in_code(*people.existence())
    assert names_in_code(*resource("vault", "audit").existence()) == {"vault"}


def test_the_roles_stand_before_the_app():
    """A module is done when its roles are: the app takes something from each of them, or waits for it."""
    [app] = [module for module in MAIN.modules() if module.symbol == "app"]
    named_by_app = {text(node) for node in walk(app.body) if node.type == "identifier"}
    with_roles = {module.symbol for module in MAIN.modules() if Path(module.path).stem in {name for name, _ in ROLES}}
    assert with_roles == {"storage", "vault", "monitor", "openAi", "openAiSecond", "signalRService"}
    assert with_roles <= named_by_app


def test_the_tables_are_those_of_the_code():
    created = set(FILES["storage"].scope({})["tableNames"])
    in_code = {each for each in strings_in_code() if re.fullmatch(r"Router[A-Z][A-Za-z0-9]+", each)}
    assert "RouterState" in in_code
    assert created == in_code


def test_the_publishing_tools_and_the_template_mean_the_same_app():
    azd = (ROOT / "azure.yaml").read_text(encoding="utf-8")
    [service] = re.findall(r"^services:\n  ([\w-]+):", azd, re.MULTILINE)
    site = resource("app", "site")
    assert evaluate(site.property("tags"), {"tags": {}}) == {"azd-service-name": service}
    assert re.findall(r"^    (\w+): (\S+)", azd, re.MULTILINE) == [
        ("project", "."),
        ("host", "function"),
        ("language", "py"),
    ]
    assert "path: infra\n  module: main\n" in azd


def test_the_host_settings_fit_the_template():
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    assert host["extensions"]["http"]["routePrefix"] == ""
    assert settings()["AzureWebJobsDisableHomepage"] == "true"
    site = resource("app", "site")
    runtime = evaluate(site.property("properties", "functionAppConfig", "runtime"), {})
    assert runtime == {"name": "python", "version": "3.13"}


def rules(**given: object) -> list[dict[str, object]]:
    """The alert rules for those thresholds."""
    thresholds = {"seconds": 7, "errorPercent": 8, "budgetUsdPerDay": 9}
    return list(FILES["alerts"].scope({**thresholds, **given})["rules"])


def test_every_alert_has_its_query_and_every_query_its_alert():
    wanted = {str(rule["key"]): rule["query"] for rule in rules()}
    assert wanted == {path.stem: f"<../queries/{path.name}>" for path in INFRA.glob("queries/*.kql")}


def test_the_blanks_of_a_query_are_filled_in():
    filled = re.findall(r"replace\(loadTextContent\('../queries/([\w.-]+)'\), '(\{\w+\})'", FILES["alerts"].text)
    blanks = {name: re.findall(r"\{\w+\}", query) for name, query in queries().items() if name.endswith(".kql")}
    assert {name: found for name, found in blanks.items() if found} == {name: [blank] for name, blank in filled}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["key"])
def test_an_alert_is_split_by_a_column_of_its_query(rule):
    query = queries()[f"{rule['key']}.kql"]
    assert not rule["dimension"] or re.search(rf"\b{rule['dimension']}( =|\n|$)", query.splitlines()[-1] + query)


def test_the_budget_alert_exists_when_there_is_a_budget():
    enabled = {usd: {rule["key"]: rule["enabled"] for rule in rules(budgetUsdPerDay=usd)} for usd in (0, 1)}
    assert enabled[1] == dict.fromkeys(enabled[1], True)
    assert [key for key, on in enabled[0].items() if not on] == ["budget"]


def test_every_alert_says_what_to_do():
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (\S+)$", page, re.MULTILINE)
    assert [rule["key"] for rule in rules() if rule["key"] not in headings] == []


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_no_key_is_asked_for_or_handed_out(file):
    code = "\n".join(line.split("//")[0] for line in file.text.splitlines() if "https://" not in line)
    assert not re.search(r"\b(listKeys|listSecrets|listAccountSas|list\w*)\(", code)
    assert "@secure" not in code
    assert not re.search(r"(?i)(password|accountkey|sharedaccess|connectionstring\s*=)", code)
    secret = re.compile(r"(?i)key|secret|token|password|connection")
    allowed = {"connection"} if file.path.stem == "monitor" else set()  # a locator: local authentication is off
    assert {name for name in file.outputs() if secret.search(name)} == allowed


def test_what_could_let_somebody_in_without_an_identity_is_off():
    def flag(file, symbol, *path):
        return evaluate(resource(file, symbol).property("properties", *path), {})

    assert flag("storage", "account", "allowSharedKeyAccess") is False
    assert flag("storage", "account", "allowBlobPublicAccess") is False
    assert flag("storage", "account", "supportsHttpsTrafficOnly") is True
    assert flag("app", "site", "httpsOnly") is True
    assert flag("vault", "vault", "enableRbacAuthorization") is True
    assert flag("vault", "vault", "enablePurgeProtection") is True
    assert flag("monitor", "insights", "DisableLocalAuth") is True
    assert flag("monitor", "workspace", "features", "disableLocalAuth") is True
    assert flag("openai", "account", "disableLocalAuth") is True
    assert flag("signalr", "service", "disableLocalAuth") is True


def test_what_the_plan_refuses_is_never_set():
    assert not settings().keys() & REFUSED_BY_THE_PLAN
    for file in FILES.values():
        words = {text(node) for node in walk(file.root) if node.type in ("identifier", "property_identifier")}
        assert not words & {"linuxFxVersion", "basicPublishingCredentialsPolicies"}
        named_here = {name for name in REFUSED_BY_THE_PLAN if name in file.text}
        assert named_here == (REFUSED_BY_THE_PLAN if file.path == MAIN.path else set())  # the main one refuses them


def test_the_parameters_file_holds_no_secret():
    given = (INFRA / "main.parameters.json").read_text(encoding="utf-8")
    assert not re.search(r"(?i)sk-|password|[A-Za-z0-9+/]{32,}", given)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_and_no_secret_is_stored(path):
    workflow = path.read_text(encoding="utf-8")
    uses = re.findall(r"uses: (.+)", workflow)
    assert uses
    assert [each for each in uses if not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)] == []
    assert "secrets." not in workflow
    assert re.findall(r"^permissions:\n((?:  .+\n)+)", workflow, re.MULTILINE) == ["  contents: read\n"]


def test_the_check_of_the_workflow_is_the_one_that_users_have():
    runs = re.findall(r"run: (.+)", (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    assert runs == ["make test"]


def test_the_deployment_signs_in_with_openid_connect_and_shows_what_a_pull_request_would_change():
    workflow = (ROOT / ".github/workflows/deploy.yml").read_text(encoding="utf-8")
    assert workflow.count("      id-token: write") == len(re.findall(r"uses: azure/login@", workflow)) == 2
    assert re.findall(r"az deployment group (\S+)", workflow) == ["what-if", "create"]
    assert workflow.count("infra/main.parameters.json") == 2
    [script] = re.findall(r"run: (scripts/\S+)", workflow)
    assert (ROOT / script).stat().st_mode & 0o111


PAGES = [ROOT / "docs/deploy.md", ROOT / "docs/operations.md", *sorted(ROOT.glob("docs/operations/*.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path, target: str, anchor: str) -> bool:
    there = (page.parent / target).resolve() if target else page
    return not there.is_file() or bool(anchor and anchor not in anchors(there))


def test_links_between_pages_lead_somewhere():
    link = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]+))?\)")
    links = [(page, *found) for page in PAGES for found in link.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > 20
    assert [(page.name, target, anchor) for page, target, anchor in links if broken(page, target, anchor)] == []
