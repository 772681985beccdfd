"""Whoever adds an error, a code or a metric documents it; ``scripts/docs`` writes the pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragworks.api import problems
from ragworks.control import metrics_reference
from ragworks.errors import RagworksError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
KINDS = list(problems.every_error())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_a_title_and_a_remedy(kind: type[RagworksError]) -> None:
    row = problems.TABLE[kind]
    assert 400 <= row.status <= 599
    assert row.title
    assert row.remedy.endswith(".")


def test_the_table_maps_nothing_that_does_not_exist() -> None:
    assert set(problems.TABLE) == set(KINDS)


def test_codes_are_stable_names_and_belong_to_one_class_each() -> None:
    codes = [kind.code for kind in KINDS if "code" in vars(kind)]
    assert len(codes) == len(set(codes))
    assert all(code.replace("_", "").isalpha() and code.islower() for code in codes)


@pytest.mark.parametrize(
    ("page", "written"), [("errors.md", problems.reference), ("metrics.md", metrics_reference.page)]
)
def test_the_reference_page_is_up_to_date(page: str, written: object) -> None:
    assert callable(written)
    assert (REFERENCE / page).read_text(encoding="utf-8") == written(), "run scripts/docs"
