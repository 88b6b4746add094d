"""`python -m tools.services`: writes docs/services.md from the table of services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from routing.providers.quirks import Quirks
from routing.providers.services import SERVICES, Service

PAGE = Path(__file__).resolve().parent.parent / "docs" / "services.md"
_HEAD = """\
# Services that speak OpenAI's protocol

Name one in the routes file, and the router knows where it is, which app setting has its key, and how it differs from
OpenAI. What you say yourself comes before what the row says.

```toml
[providers.mistral]
type = "openai"
service = "mistral"                                # address, key = "env:MISTRAL_API_KEY", and its quirks

[providers.own]
type = "openai"
service = "vllm"
base_url = "http://10.0.0.7:8000/v1"               # with an address of your own, `key` is yours to give as well
quirks = { refuses = ["logit_bias"], roles = {} }  # in place of what the row has under these names
```

`quirks` also serves a compatible server that is not listed here:

| key | what it says |
|---|---|
| `roles` | a role the service does not know, and the one to send instead |
| `renames` | a field it does not know, and its own name for it |
| `refuses` | fields it answers with an error: they are left out; `messages[].name` is a field of each message |
| `knows` | the only fields it takes: all others are left out |
| `heeds` | the only fields it does not overlook: all others are sent, in case a later version heeds them |

What is left out or overlooked, and asked for something, is named in the answer's header `x-router-dropped`. A field
that asks for what happens anyway (`n = 1`, `store = false`, a penalty of 0) goes without mention. A service without
`tool_choice` is offered no tools for `none`, and only the one for a named tool.

Written by `python -m tools.services` from `routing/providers/services.py`; a row says no more than its sources.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(line for name in sorted(SERVICES) for line in _section(name, SERVICES[name]))])


def _section(name: str, row: Service) -> Iterator[str]:
    yield f"## {row.title}: `{name}`\n"
    yield f"- Address: `{row.base_url}`"
    yield f"- Key: `env:{row.key}`" if row.key else "- Key: none unless you give one"
    yield from (f"- {line}" for line in _quirks(row.quirks))
    yield from (f"- Embeddings: {line[0].lower()}{line[1:]}" for line in _quirks(row.embedding_quirks))
    if row.note:
        yield f"- {row.note}"
    yield f"- As of {row.checked}: {', '.join(f'<{source}>' for source in row.sources)}\n"


def _quirks(quirks: Quirks) -> Iterator[str]:
    changes = {**quirks.roles, **quirks.renames}
    for name in sorted(changes):
        yield f"Sends `{changes[name]}` for {'the role ' if name in quirks.roles else ''}`{name}`"
    if quirks.refuses:
        yield f"Refuses {_names(quirks.refuses)}"
    if quirks.knows is not None:
        yield f"Takes only {_names(quirks.knows)}"
    if quirks.heeds is not None:
        yield f"Heeds only {_names(quirks.heeds)}"


def _names(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
