from __future__ import annotations

import re

import pytest

from documents import pdf
from layouts import column, pages
from ragworks.text import parse_pdf as module
from ragworks.text import pdf_layout
from ragworks.text.clean import clean
from ragworks.text.parse_pdf import parse_pdf


def test_every_section_is_on_one_page_and_knows_the_heading_of_the_page_before() -> None:
    parsed = parse_pdf(pdf([["# Warranty", "Frames: ten years."], ["Batteries: two years."]], title="Terms"))
    assert [(section.page, section.headings) for section in parsed.sections] == [(1, ("Warranty",)), (2, ("Warranty",))]
    assert (parsed.title, parsed.pages) == ("Terms", 2)


def test_a_page_that_one_reader_garbles_is_taken_from_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "marked_pages", lambda _data, _plain: (["Frames: ten", "# Batteries\n\ntwo years."], [])
    )
    parsed = parse_pdf(pdf([["Frames: ten years on every model."], ["Batteries", "two years."]]))
    assert parsed.text == "Frames: ten years on every model.\n\n# Batteries\n\ntwo years."


def test_a_page_taken_from_the_other_reader_keeps_its_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    marked = ["# Warranty of frames\n\nten g a r b l e d\n\n## Batteries\n\ntwo"]
    monkeypatch.setattr(module, "marked_pages", lambda _data, _plain: (marked, []))
    parsed = parse_pdf(pdf([["Warranty of frames", "Ten years on every model.", "Batteries", "Two years."]]))
    assert [section.headings for section in parsed.sections] == [
        ("Warranty of frames",),
        ("Warranty of frames", "Batteries"),
    ]
    assert parsed.text == "# Warranty of frames\nTen years on every model.\n\n## Batteries\nTwo years."


def test_a_heading_with_the_number_of_its_page_is_a_running_title() -> None:
    pages = ["# 3.3 Bells\n\nRing.", "# 59 3.3. BELLS\n\nThey ring.\n\n# 3.4 Lamps", "# 2 Brakes\n\n# 3.4. LAMPS 60"]
    assert module._without_running_titles(pages) == [
        "# 3.3 Bells\n\nRing.",
        "59 3.3. BELLS\n\nThey ring.\n\n# 3.4 Lamps",
        "# 2 Brakes\n\n3.4. LAMPS 60",
    ]


def test_columns_and_tables_whose_headers_repeat_are_no_disagreement() -> None:
    plain = "Price\nof 2024\nof 2025\nBell 9 10\nLamp 20 21"
    assert module._reads_well(
        "| | Price of 2024 | Price of 2025 |\n|---|---|---|\n| Bell | 9 | 10 |\n| Lamp | 20 | 21 |", plain
    )
    assert not module._reads_well("$\\mathfrak{T} \\subseteq \\mathcal{P}(X)$ is open", "T ⊆ P(X) is open")


def test_words_broken_at_line_ends_are_no_disagreement() -> None:
    assert module._reads_well("A description of warranty", "A descrip\ufffe\r\ntion of warran-\r\nty")


def test_right_to_left_pages_are_taken_as_they_are_stored() -> None:
    text = "שלום לכולם"
    assert not module._reads_well(text, text)


def test_a_layout_that_cannot_be_read_costs_the_layout_and_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, **_: object) -> None: ...

        def parse(self, _: bytes) -> None:
            raise RuntimeError("no layout today")

    monkeypatch.setattr(pdf_layout, "LiteParse", Broken)
    parsed = parse_pdf(pdf([["Frames: ten years."]]))
    assert parsed.text.strip() == "Frames: ten years."
    assert "no layout today" in parsed.warnings[0]


def test_typography_is_not_text() -> None:
    assert (
        module._tidied("**Bold** and *it*\n\n---\n\n3 \\* 4 \\_ 5\n\n## • point")
        == "Bold and it\n\n\n\n3 * 4 _ 5\n\n- point"
    )


def test_lines_that_repeat_on_most_pages_are_dropped() -> None:
    body = ["Alpha comes first.", "Beta is the next.", "Gamma ends it all.", "Delta was forgotten."]
    parsed = clean(
        parse_pdf(
            pdf([["Halden Bikes confidential", text, f"Page {number} of 4"] for number, text in enumerate(body, 1)])
        )
    )
    assert parsed.text.split("\n\n") == body
    assert [section.page for section in parsed.sections] == [1, 2, 3, 4]


def test_a_spread_that_two_pages_draw_is_read_once() -> None:
    """One page after the other shows the left and the right half of the same drawing, as books made of spreads do."""
    left = column("l", 60, 100, 8)
    right = [(x + 595.28, y, text) for x, y, text in column("r", 60, 100, 8)]
    shifted = [(x - 595.28, y, text) for x, y, text in [*left, *right]]
    parsed = parse_pdf(pages([[*left, *right], shifted]))
    assert re.findall(r"[lr]\d\d", parsed.text) == [f"{side}{at:02}" for side in "lr" for at in range(1, 9)]


def test_bullets_of_a_symbol_font_begin_items() -> None:
    assert module._tidied("\x84 Bells \uf0b7 Lamps") == "\n- Bells \n- Lamps"
    assert module._tidied("| \uf0b7 Bells |") == "| \uf0b7 Bells |"


def test_halves_of_a_word_are_joined_if_the_other_reader_has_it_whole() -> None:
    assert module._rejoined("popu- lation of self- made men", "population self- made") == "population of self- made men"
