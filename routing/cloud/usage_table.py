"""The ledger's rows in Azure Table Storage: a partition a day with a few rows of each instance, and one of the living."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from routing.cloud.tables import TableStore, _versioned, escape, unescape
