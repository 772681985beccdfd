"""A real Prometheus with the committed configuration, but in a hurry, that scrapes a server of the test."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from ragworks.api.server import ListeningServer
from ragworks.control.metrics import Metrics

MONITORING = Path(__file__).parents[1] / "deploy" / "monitoring"
GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "monitor.md"
EVERY = "500ms"
READY = b"Server is ready to receive web requests"


class Prometheus:
    """What it knows, by its HTTP API."""

    def __init__(self, http: httpx.AsyncClient, metrics: Metrics) -> None:
        self._http, self._scraped = http, asyncio.Event()
        render = metrics.render

        def rendered() -> bytes:
            self._scraped.set()
            return render()

        metrics.render = rendered

    async def api(self, path: str, **query: Any) -> Any:
        answer = await self._http.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, f"{path} {query}: {answer.text}"
        return answer.json()["data"]

    async def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of an instant vector, now; a constant has no labels."""
        data = await self.api("query", query=expr)
        found = data["result"] if data["resultType"] == "vector" else [{"metric": {}, "value": data["result"]}]
        return [(one["metric"], float(one["value"][1])) for one in found]

    async def rules(self) -> list[dict[str, Any]]:
        return [rule for group in (await self.api("rules"))["groups"] for rule in group["rules"]]

    async def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that do, by name."""
        alerts = (await self.api("alerts"))["alerts"]
        return {one["labels"]["alertname"]: one for one in alerts if one["state"] == "firing"}

    async def until(self, expr: str) -> None:
        """Asks again after each scrape until ``expr`` has a value; the time limit of the test ends it otherwise."""
        while not await self.query(expr):
            self._scraped.clear()
            await self._scraped.wait()


@asynccontextmanager
async def prometheus(folder: Path, server: ListeningServer, metrics: Metrics) -> AsyncIterator[Prometheus]:
    """Started as the guide says, it has scraped ``server``, whose ``metrics`` these are, and will twice a second."""
    port = _free_port()
    written = re.search(r"^prometheus (--config\.file=\S+ .*)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert written
    options = dict(option.split("=", 1) for option in written[1].split())
    options |= {
        "--config.file": str(_in_a_hurry(folder, server.url.removeprefix("http://"))),
        "--storage.tsdb.path": str(folder / "data"),
        "--web.listen-address": f"127.0.0.1:{port}",
    }
    program = shutil.which("prometheus")
    assert program, "the tests need prometheus and promtool; on Debian and Ubuntu: apt install prometheus"
    process = await asyncio.create_subprocess_exec(
        program, *(f"{name}={value}" for name, value in options.items()), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    drained = None
    try:
        said = b""
        while READY not in said:
            line = await process.stderr.readline()
            assert line, said.decode()
            said += line
        drained = asyncio.create_task(process.stderr.read(), name="what prometheus says")  # awaited below
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            seen = Prometheus(http, metrics)
            await seen.until('up{job="ragworks"} == 1')
            yield seen
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if drained:
            await drained


def _in_a_hurry(folder: Path, target: str) -> Path:
    """A copy of the configuration and its rules, in which nothing but target and intervals is changed."""
    shutil.copytree(MONITORING / "rules", folder / "rules")
    for file in (folder / "rules").iterdir():
        file.write_text(re.sub(r"^    interval: \w+", f"    interval: {EVERY}", file.read_text(), flags=re.MULTILINE))
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    assert config["scrape_configs"][0]["static_configs"][0]["targets"] == ["127.0.0.1:8000"]
    config["global"] |= {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    copy = folder / "prometheus.yml"
    copy.write_text(yaml.safe_dump(config))
    return copy


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
