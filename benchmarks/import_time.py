"""CPU time of importing the app, over the azure.functions and FastAPI imports that the platform needs anyway.

    python -m benchmarks.import_time

Each round is a new interpreter; the least of them says most on a shared machine. The first line of ours is with the
modules' bytecode at hand, the second without, as where an app's folder cannot be written to.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 9
CODE = """
import time, azure.functions, azurefunctions.extensions.http.fastapi
platform = time.process_time()
import function_app
print(platform, time.process_time() - platform)
"""


def measure(environment: dict[str, str]) -> list[list[float]]:
    """Sorted milliseconds of CPU of the platform's imports, and of ours on top."""
    root, command = Path(__file__).resolve().parent.parent, [sys.executable, "-c", CODE]
    rounds = [
        subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(ROUNDS)
    ]
    return [sorted(float(line.split()[column]) * 1000 for line in rounds) for column in (0, 1)]


def main() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        environment["PYTHONPYCACHEPREFIX"] = folder
        measure(environment)  # writes the bytecode
        platform, with_bytecode = measure(environment)
        _, without = measure({**environment, "PYTHONPYCACHEPREFIX": "", "PYTHONDONTWRITEBYTECODE": "1"})
    for name, figures in (("platform", platform), ("the app", with_bytecode), ("compiled anew", without)):
        print(f"{name:14} least {figures[0]:4.0f} ms, median {figures[ROUNDS // 2]:4.0f} ms of CPU")


if __name__ == "__main__":
    main()
