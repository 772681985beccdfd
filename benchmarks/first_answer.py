"""From an empty folder to the first cited answer: seconds and disk of every step.

Usage: python benchmarks/first_answer.py [--no-cache] [--question TEXT] [--json]. With --no-cache pip downloads every
package; without it pip uses its cache, which must be warm to mean anything (run twice). Caveat: the downloads measure
the network and the package index more than they measure ragworks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "How long is the battery warranty?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-cache", action="store_true", help="let pip download everything")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragworks-first-answer-") as folder:
        found = first_answer(Path(folder), given.question, no_cache=given.no_cache)
    print(json.dumps(found, indent=2, ensure_ascii=False) if given.json else table(found))


def first_answer(folder: Path, question: str, *, no_cache: bool) -> dict[str, Any]:
    checkout = folder / "ragworks"
    copy_sources(checkout)
    python, data = folder / "venv" / "bin" / "python", folder / "data"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(checkout)]
    command = [str(folder / "venv" / "bin" / "ragworks")]
    place = ["--data", str(data), "--json"]
    seconds: dict[str, float] = {}
    timed(seconds, "make_venv", lambda: run([sys.executable, "-m", "venv", str(folder / "venv")], folder))
    empty = disk_mb(folder / "venv")
    timed(seconds, "pip_install", lambda: run([*pip, *(["--no-cache-dir"] if no_cache else [])], folder))
    installed = disk_mb(folder / "venv")
    documents = str(checkout / "examples" / "quickstart")
    timed(seconds, "ingest", lambda: run([*command, "ingest", documents, *place], folder))
    answer = timed(seconds, "ask", lambda: run([*command, "ask", question, *place], folder))
    return {
        "machine": machine(),
        "pip_cache": "off" if no_cache else "on",
        "seconds": {**seconds, "total": round(sum(seconds.values()), 2)},
        "installed_mb": round(installed - empty, 1),
        "data_folder_mb": round(disk_mb(data), 1),
        "answer": json.loads(answer)["answer"],
        "citations": len(json.loads(answer)["citations"]),
    }


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


def copy_sources(target: Path) -> None:
    for name in ("src", "examples"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)


def timed(seconds: dict[str, float], step: str, work: Callable[[], str]) -> str:
    started = time.perf_counter()
    result = work()
    seconds[step] = round(time.perf_counter() - started, 2)
    return result


def run(command: list[str], folder: Path) -> str:
    # What the caller's shell has set must not reach into the fresh environment.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "RAGWORKS_"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def disk_mb(folder: Path) -> float:
    files = (one.lstat() for one in folder.rglob("*"))
    return sum(one.st_blocks * 512 for one in files) / 1e6


def table(found: dict[str, Any]) -> str:
    lines = [found["machine"], f"pip cache {found['pip_cache']}"]
    lines += [f"{step:12}{seconds:>9} s" for step, seconds in found["seconds"].items()]
    lines += [f"{'installed':12}{found['installed_mb']:>9} MB", f"{'data folder':12}{found['data_folder_mb']:>9} MB"]
    return "\n".join([*lines, f"answer: {found['answer']} ({found['citations']} citations)"])


if __name__ == "__main__":
    main()
