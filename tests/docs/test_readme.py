"""Every command and every program in the README and the guides is run, for real, as a reader would.

Each page has a folder with copies of ``deploy`` and ``examples``, and a server with the hashing embedder, which needs
no weights. Fenced blocks marked bash, console or python are run in order; ``<!-- test: stop the server -->`` stops the
server.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^<!-- test: (stop) the server -->$|^```(bash|console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)[^)]*\)")
PATH = re.compile(r"`((?:benchmarks|deploy|docs|examples|scripts|src|tests)/[\w./-]+)`")
WRITTEN_ADDRESS = "http://127.0.0.1:8000"
DEADLINE_S = 60.0


class Reader:
    """Someone who follows a page in ``folder``: knows ``ragworks``, ``python`` and ``curl``, and may start a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server: subprocess.Popen[str] | None = None
        self._drain: threading.Thread | None = None
        self._address = WRITTEN_ADDRESS
        tools = folder / "bin"
        tools.mkdir()
        _tool(tools / "ragworks", sys.executable, "-m", "ragworks")
        _tool(tools / "python", sys.executable)
        _tool(tools / "curl", sys.executable, str(Path(__file__).with_name("curl_stand_in.py")))
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RAGWORKS_")}
        self._environment = plain | {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "RAGWORKS_EMBEDDINGS_SERVICE__MODEL_NAME": "hashing",
            "RAGWORKS_SERVER__PORT": "0",
        }

    def follow(self, kind: str, text: str) -> None:
        if kind == "python":
            self._run([sys.executable, "-c", text])
            return
        waiting: list[str] = []
        for command in commands(kind, text):
            if command.startswith(("scripts/", ". .venv/", "ragworks serve")):
                self._shell(waiting)
                waiting = []
                self._special(command)
            else:
                waiting.append(command)
        self._shell(waiting)

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE_S) == 0
            assert self._drain is not None
            self._drain.join(DEADLINE_S)
            assert server.stdout is not None
            server.stdout.close()

    def _special(self, command: str) -> None:
        if command.startswith("ragworks serve"):
            self._serve(shlex.split(command, comments=True))
        elif command.startswith("scripts/"):
            # They install packages: that they work is what CI and tests/end_to_end/test_quickstart.py show.
            script = ROOT / shlex.split(command)[0]
            assert os.access(script, os.X_OK), f"{script} is not there or not executable"

    def _shell(self, lines: list[str]) -> None:
        if lines:
            text = "\n".join(lines).replace(WRITTEN_ADDRESS, self._address)
            self._run(["bash", "-euo", "pipefail", "-c", text])

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr

    def _serve(self, command: list[str]) -> None:
        assert self._server is None, "the page starts a second server"
        self._server = server = subprocess.Popen(
            command, cwd=self.folder, env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert server.stdout is not None
        ingests = len(command) > 2 and not command[2].startswith("-")
        wanted = ["listens on", "service_started.*orchestration_api", *(["^ingested "] if ingests else [])]
        for line in server.stdout:
            if found := re.search(r"listens on (\S+),", line):
                self._address = found.group(1)
            wanted = [one for one in wanted if not re.search(one, line)]
            if not wanted:
                break
        assert not wanted, f"the server ended before it said {wanted}"
        self._drain = threading.Thread(target=server.stdout.read)
        self._drain.start()


def commands(kind: str, text: str) -> Iterator[str]:
    """The commands of a block, continued lines joined; in a console block those behind ``$``, the rest is output."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if kind == "console" and not line.startswith("$ "):
            continue
        if command := line.removeprefix("$ ").strip():
            yield command


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(stop or kind, text) for stop, kind, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def _tool(file: Path, *command: str) -> None:
    file.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    file.chmod(0o755)


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    for folder in ("deploy", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    reader = Reader(tmp_path)
    yield reader
    reader.stop()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=_named)
def test_everything_that_a_page_tells_to_run_works(page: Path, reader: Reader) -> None:
    for kind, text in blocks(page):
        if kind == "stop":
            reader.stop()
        else:
            reader.follow(kind, text)


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = set(PATH.findall(page.read_text(encoding="utf-8"))) - {
        "src/ragworks/text/parse_x.py"
    }  # the guide's example
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_readme_starts_with_one_command_to_run_and_one_to_test() -> None:
    first = [command for _, text in blocks(ROOT / "README.md") for command in commands("bash", text)][:2]
    assert [shlex.split(command, comments=True)[0] for command in first] == ["scripts/quickstart", "scripts/check"]
