"""`python -m tools.compatibility`: writes docs/compatibility.md from the cells that the conformance tests prove."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.cells import CLIENTS, FEATURES, PROVIDERS, Cell, Client, cells

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
_HEAD = """\
# Compatibility

What each client can do through the router with each kind of provider. Every cell, also every "no", is a test of
`make test` (`tests/test_conformance.py`): the real client in front of the router, a stand-in that speaks the provider's
wire format behind it. A feature that depends on the model (tools, images, JSON schemas) needs a model that has it, and
a target whose `supports` says so.

Not in the matrix: LlamaIndex, whose seventy packages take longer to install than all these tests to run.

Written by `python -m tools.compatibility` from `tests/conformance/cells.py`.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(line for name, client in CLIENTS.items() for line in _section(name, client))])


def _section(name: str, client: Client) -> Iterator[str]:
    """The client's table, and below it the reasons its numbers refer to."""
    rows = {
        feature: [cell for cell in cells() if (cell.client, cell.feature) == (name, feature)] for feature in FEATURES
    }
    reasons = list(dict.fromkeys(cell.exemption.reason for row in rows.values() for cell in row if cell.exemption))
    yield f"## {client.title}\n"
    yield f"`{client.package}` {_version(client)}, through `{client.speaks}`.\n"
    yield f"| | {' | '.join(PROVIDERS.values())} |"
    yield f"|---|{'---|' * len(PROVIDERS)}"
    for feature, row in rows.items():
        yield f"| {FEATURES[feature]} | {' | '.join(_word(cell, reasons) for cell in row)} |"
    if reasons:
        yield ""
    yield from (f"{place}. {reason}" for place, reason in enumerate(reasons, start=1))
    yield ""


def _word(cell: Cell, reasons: list[str]) -> str:
    if cell.exemption is None:
        return "yes"
    word = "yes" if cell.offered else "not offered"
    return f"{word} ({reasons.index(cell.exemption.reason) + 1})"


def _version(client: Client) -> str:
    """The version the tests run with. Raises KeyError where the pin is gone."""
    text = (ROOT / client.pinned_in).read_text(encoding="utf-8")
    if client.pinned_in.endswith(".json"):
        return str(json.loads(text)["devDependencies"][client.package])
    return dict(line.split("==") for line in text.splitlines() if "==" in line)[client.package]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
