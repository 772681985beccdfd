"""scripts/quickstart in a checkout whose environment is there: serves, ingests, answers, and can be repeated."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
DEADLINE_S = 55.0


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy with a .venv that runs the sources under test; the server that the script leaves is stopped."""
    for name in ("scripts", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src").mkdir()
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, command in {"python": [], "ragworks": ["-m", "ragworks"]}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *command])} "$@"\n')
        (tools / name).chmod(0o755)
    (tmp_path / ".venv" / "ragworks-installed").touch()
    yield tmp_path
    left = tmp_path / ".ragworks" / "server.json"
    if left.exists():
        server = psutil.Process(json.loads(left.read_text())["pid"])
        server.terminate()
        server.wait(DEADLINE_S)


def quickstart(checkout: Path, *arguments: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAGWORKS_")}
    done = subprocess.run(
        ["scripts/quickstart", *arguments],
        cwd=checkout,
        env=plain | {"RAGWORKS_EMBEDDINGS_SERVICE__MODEL_NAME": "hashing"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_script_answers_with_a_citation_and_leaves_the_server_up_for_the_next_time(checkout: Path) -> None:
    first = quickstart(checkout)
    assert "6 of 6 documents are in" in first
    assert "[1] warranty-terms.pdf, page" in first
    second = quickstart(checkout, "Are reports older than 90 days paid?")
    assert "a server runs already" in second
    assert "6 unchanged" in second
    assert "[1] travel-policy.md" in second
