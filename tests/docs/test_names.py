"""Settings, events and modules that the pages name are the code's: who renames one finds the pages that say it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragworks.policies.scaling import ScaleSpec
from ragworks.policies.scaling_settings import changed
from ragworks.settings import Settings, describe, load

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ragworks"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "guides").glob("*.md"))]
SETTINGS_BLOCK = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = "|".join({key.split(".")[0] for key, _, _ in describe(Settings())})
SETTING = re.compile(rf"`((?:{SECTIONS})\.[a-z_.]*[a-z])\b(?! = )")
MODULE = re.compile(r"`((?:\w+/)+\w+\.py)`")
FILE_NAMES = re.compile(r"\.(?:py|json|db)\b")
SIMULATED = re.compile(r"`?(?:--set |`)((?:target|predictive|threshold)\.[a-z_.]*[a-z])")
EVENT_TABLE = re.compile(r"^\| Event \|.*\n\|[- |]+\n((?:\|.*\n)+)", re.MULTILINE)
IN_THE_LOG = re.compile(r"\blog(?: line)?\s+(?:says|has|is)\s+(`\w+`(?:(?:,|\s+and)\s+`\w+`)*)")


def blocks() -> Iterator[tuple[Path, str]]:
    for page in [*PAGES, ROOT / "docs" / "reference" / "settings.md"]:
        for text in SETTINGS_BLOCK.findall(page.read_text(encoding="utf-8")):
            yield page, text


def names(page: Path, pattern: re.Pattern[str]) -> set[str]:
    return set(pattern.findall(page.read_text(encoding="utf-8")))


def _id(value: object) -> str | None:
    return value.stem if isinstance(value, Path) else ""


@pytest.mark.parametrize(("page", "text"), list(blocks()), ids=_id)
def test_a_server_accepts_every_settings_file_that_a_page_shows(page: Path, text: str, tmp_path: Path) -> None:
    file = tmp_path / "ragworks.toml"
    file.write_text(text, encoding="utf-8")
    load(str(file), {})
    for profile in tomllib.loads(text).get("profile", {}):
        load(str(file), {}, profile=profile)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_setting_that_a_page_names_is_one(page: Path) -> None:
    known = {key for key, _, _ in describe(Settings())}
    tables = {key.rsplit(".", depth)[0] for key in known for depth in range(1, key.count(".") + 1)}
    named = {name for name in names(page, SETTING) if not FILE_NAMES.search(name)}
    assert named - known - tables == set()


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_the_simulator_knows_every_setting_of_a_scaler_that_a_page_names(page: Path) -> None:
    for name in names(page, SIMULATED):
        changed(ScaleSpec(), name, "1")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=_id)
def test_every_module_that_a_page_names_is_there(page: Path) -> None:
    named = {name for name in names(page, MODULE) if not name.endswith("/parse_x.py")}  # that of an example
    assert {name for name in named if not (SOURCE / name).exists() and not (ROOT / name).exists()} == set()


def test_every_event_that_a_page_names_is_one_that_the_code_logs() -> None:
    logged = re.compile("|".join(_texts()))
    rows = [row for page in PAGES for table in names(page, EVENT_TABLE) for row in table.splitlines()]
    said = [row.split("|")[1] for row in rows] + [one for page in PAGES for one in names(page, IN_THE_LOG)]
    named = set(re.findall(r"`(\w+)`", " ".join(said)))
    assert {"held", "service_failed", "webhook_retried"} <= named, "the patterns of this test find nothing any more"
    assert {name for name in named if not logged.fullmatch(name)} == set()


def _texts() -> Iterator[str]:
    """A pattern for each name that stands in the source as a string, those with a part to be filled in too."""
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [one.value if isinstance(one, ast.Constant) else "" for one in node.values]
                if re.fullmatch(r"[a-z]{3,}_|(?:_[a-z]{3,})+", "".join(map(str, parts))):
                    yield "".join(str(one) or r"\w+" for one in parts)
