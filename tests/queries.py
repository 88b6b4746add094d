"""Queries of alerts and workbook, the words of the code, and what Kusto's own language service says of a query."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.conftest import unavailable

ROOT = Path(__file__).resolve().parent.parent
INFRA = ROOT / "infra"
SERVICE = ROOT / "node_modules/@kusto/language-service-next"
OURS = "timestamp:datetime, customDimensions:dynamic, operation_Id:string, cloud_RoleName:string, itemCount:int"
# Of Application Insights' tables and the vault's log, the columns that queries may want; types as the service has them.
TABLES = {
    "requests": f"id:string, name:string, success:string, resultCode:string, duration:real, {OURS}",
    "dependencies": f"id:string, target:string, type:string, success:string, resultCode:string, duration:real, {OURS}",
    "customEvents": f"name:string, {OURS}",
    "customMetrics": f"name:string, valueSum:real, valueCount:int, valueMin:real, valueMax:real, {OURS}",
    "AZKVAuditLogs": "TimeGenerated:datetime, OperationName:string, HttpStatusCode:int, ResultSignature:string",
}


def complaints(queries: Mapping[str, str]) -> dict[str, list[str]]:
    """Of each query, what is wrong with it."""
    if not (shutil.which("node") and SERVICE.is_dir()):
        unavailable("Kusto's language service is not installed (install nodejs and npm, then run make setup)")
    asked = json.dumps({"tables": TABLES, "queries": queries})
    command = ["node", str(ROOT / "tests/queries.cjs")]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=120, check=True)
    return dict(json.loads(done.stdout))


@cache
def queries() -> dict[str, str]:
    """Every query, by its file or its place in the workbook."""
    found = {path.name: path.read_text(encoding="utf-8") for path in INFRA.glob("queries/*.kql")}
    workbook = json.loads((INFRA / "workbooks/router.json").read_text(encoding="utf-8"))
    return found | {item["name"]: item["content"]["query"] for item in workbook["items"] if item["type"] == 3}


@cache
def strings_in_code() -> frozenset[str]:
    """Every string constant of what is deployed."""
    files = [ROOT / "function_app.py", *ROOT.glob("routing/**/*.py")]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
