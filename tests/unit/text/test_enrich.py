from __future__ import annotations

import pytest

from ragworks.text.assemble import Piece, assemble
from ragworks.text.enrich import enrich


@pytest.mark.parametrize(
    ("title", "headings", "page", "expected"),
    [
        ("Terms of sale", ("Intro",), 1, "Terms of sale"),
        ("Microsoft Word - terms.doc", ("Intro",), 1, "Intro"),
        ("untitled", (), 1, "sale terms"),
        ("report.indd", ("Intro",), 2, "sale terms"),
        (None, ("3.1",), None, "sale terms"),
        ("  Two \n lines ", (), None, "Two lines"),
    ],
)
def test_the_title_comes_from_metadata_then_heading_then_name(
    title: str | None, headings: tuple[str, ...], page: int | None, expected: str
) -> None:
    parsed = assemble([Piece("text", headings, page)], "application/pdf", title=title)
    assert enrich(parsed, "docs/sale_terms.pdf").title == expected


def test_the_number_of_pages_is_a_property() -> None:
    parsed = assemble([Piece("text")], "application/pdf", pages=3, properties={"author": "Ann"})
    assert enrich(parsed, "a.pdf").properties == {"author": "Ann", "pages": 3}
