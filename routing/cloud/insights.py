"""What both ways to Application Insights have in common: its address, and how the router identifies itself there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

CONNECTION, AUTHENTICATION = "APPLICATIONINSIGHTS_CONNECTION_STRING", "APPLICATIONINSIGHTS_AUTHENTICATION_STRING"
ROLE = "Monitoring Metrics Publisher"
MEND = (
    f'where Application Insights takes no keys, give the identity the role "{ROLE}" on it (az role assignment create '
    f'--role "{ROLE}" --assignee IDENTITY --scope $(az resource list --resource-group GROUP --resource-type '
    "Microsoft.Insights/components --query '[0].id' --output tsv)); a new role is known everywhere after some minutes"
)
SECONDS = 5.0  # for one batch to arrive
# Both packages report about themselves to their maker, and one asks him for instructions, unless told otherwise.
SILENT = (
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
)


def silence() -> None:
    """To be called before a package is imported."""
    for name in SILENT:
        os.environ.setdefault(name, "true")


def connection_string(environment: Mapping[str, str]) -> str:
    """Without the slashes and semicolons at ends, which the packages trip over. Raises ValueError."""
    parts = [part.strip().rstrip("/") for part in environment.get(CONNECTION, "").split(";") if part.strip()]
    if not any(part.lower().startswith("instrumentationkey=") for part in parts):
        raise ValueError(f"{CONNECTION} names no InstrumentationKey")
    return ";".join(parts)


def credential(environment: Mapping[str, str]) -> Any | None:
    """The managed identity that the authentication string names; None where the connection string is enough."""
    pairs = (part.partition("=") for part in environment.get(AUTHENTICATION, "").split(";"))
    told = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if told.get("authorization", "").upper() != "AAD":
        return None
    from azure.identity import ManagedIdentityCredential

    client = told.get("clientid") or environment.get("AZURE_CLIENT_ID") or None
    return ManagedIdentityCredential(client_id=client)
