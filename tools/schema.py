"""Writes the JSON Schema of the routes file, from which editors complete: `python -m tools.schema`."""

from __future__ import annotations

import json
from pathlib import Path

from routing import config

PATH = Path(config.__file__).parent / "data" / "routes.schema.json"


def text() -> str:
    """The schema as it stands in the repository."""
    return json.dumps(config.schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
