"""The pages below docs/reference say what the code says; ``scripts/docs`` writes them."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("api.md", "cli.md", "errors.md", "metrics.md", "settings.md")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("write_docs", str(ROOT / "scripts" / "docs"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(script: ModuleType) -> dict[str, str]:
    return script.pages()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_page_is_what_the_code_says(pages: dict[str, str], name: str) -> None:
    found = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert found == pages[name], "run scripts/docs"


def test_the_folder_holds_these_pages_and_no_others(pages: dict[str, str]) -> None:
    assert sorted(pages) == sorted(NAMES) == sorted(file.name for file in (ROOT / "docs" / "reference").iterdir())


def test_check_reports_a_stale_page_and_changes_nothing(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "REFERENCE", tmp_path)
    monkeypatch.setattr(script, "pages", lambda: {"api.md": "new", "cli.md": "same"})
    (tmp_path / "api.md").write_text("old")
    (tmp_path / "cli.md").write_text("same")
    monkeypatch.setattr("sys.argv", ["docs", "--check"])
    assert script.main() == 1
    assert capsys.readouterr().out == "out of date, run scripts/docs: docs/reference/api.md\n"
    monkeypatch.setattr("sys.argv", ["docs"])
    assert script.main() == 0
    assert (tmp_path / "api.md").read_text() == "new"
