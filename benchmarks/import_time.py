"""CPU time of importing the app, over the azure.functions and FastAPI imports that the platform needs anyway.

    python -m benchmarks.import_time

The design allows 150 ms. Each round is a new interpreter; the least of them says most on a shared machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROUNDS = 7
CODE = """
import time, azure.functions, azurefunctions.extensions.http.fastapi
platform = time.process_time()
import function_app
print(platform, time.process_time() - platform)
"""


def main() -> None:
    root = Path(__file__).resolve().parent.parent
    rounds = [
        subprocess.run([sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True, check=True).stdout
        for _ in range(ROUNDS)
    ]
    platform, ours = (sorted(float(line.split()[column]) * 1000 for line in rounds) for column in (0, 1))
    print(f"platform   least {platform[0]:.0f} ms, median {platform[ROUNDS // 2]:.0f} ms of CPU")
    print(f"the app    least {ours[0]:.0f} ms, median {ours[ROUNDS // 2]:.0f} ms more")


if __name__ == "__main__":
    main()
