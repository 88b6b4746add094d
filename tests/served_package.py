"""Run as a program: the app in FOLDER behind the real worker library, asked once. Prints what it answered, as JSON.

The folder comes before the project's own on the path, so that what the package lacks is missing here as in the cloud.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
ROUTES = """
[providers.standin]
type = "openai"
base_url = "env:STANDIN_URL"
key = "env:PROVIDER_KEY"
[targets.gpt]
provider = "standin"
model = "gpt-5-mini"
[routes.auto]
targets = ["gpt"]
[callers.tester]
key = "env:CALLER_KEY"
"""


async def main(folder: Path, routes: Path) -> None:
    import httpx

    from local.providers import serve
    from tests.worker_host import WorkerHost

    async with serve("openai") as standin:
        given = {
            "ROUTER_CONFIG": str(routes),
            "STANDIN_URL": standin.url,
            "PROVIDER_KEY": "p",
            "CALLER_KEY": "c",
        }
        os.environ |= given
        host = WorkerHost(folder)
        await host.start()
        asked = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
        transport = httpx.ASGITransport(app=host)
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            health = await client.get("/health")
            answer = await client.post("/v1/chat/completions", json=asked, headers={"authorization": "Bearer c"})
        from routing import wiring

        await wiring.forget()
    print(json.dumps({"health": health.json(), "status": answer.status_code, "answer": answer.json(), "from": ours()}))


def ours() -> list[str]:
    """The files of the modules that the package has to bring."""
    found = [
        module.__file__
        for name, module in list(sys.modules.items())
        if name.split(".")[0] in ("routing", "function_app")
    ]
    return [str(file) for file in found if file is not None]


if __name__ == "__main__":
    package = Path(sys.argv[1]).resolve()
    sys.path[0:1] = [str(package), str(ROOT)]  # in place of tests/
    with TemporaryDirectory() as elsewhere:
        (Path(elsewhere) / "routes.toml").write_text(ROUTES)
        asyncio.run(main(package, Path(elsewhere) / "routes.toml"))
