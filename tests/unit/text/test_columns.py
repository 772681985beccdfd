"""The order of reading on pages with columns: what is beside, what is below, what spans them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layouts import LEADING, LEFT, RIGHT, Line, column, page, pages, row_by_row
from ragworks.text.clean import clean
from ragworks.text.columns import Region, mixed, place_in, regions
from ragworks.text.parse_pdf import parse_pdf

TITLE = (LEFT, 60.0, "t01 A heading that spans both of the columns of this page, from the left margin to the right one")


def marks(text: str) -> list[str]:
    return re.findall(r"\b[a-z]\d\d\b", text)


def numbered(mark: str, lines: int) -> list[str]:
    return [f"{mark}{index:02}" for index in range(1, lines + 1)]


def read(data: bytes) -> str:
    return clean(parse_pdf(data)).text


LEFT_20, RIGHT_20 = column("l", LEFT, 100, 20), column("r", RIGHT, 100, 20)


@pytest.mark.parametrize("lines", [[*LEFT_20, *RIGHT_20], row_by_row(LEFT_20, RIGHT_20)], ids=["by column", "by row"])
def test_two_columns_below_a_heading_are_read_one_after_the_other_however_they_were_written(lines: list[Line]) -> None:
    assert marks(read(page(TITLE, *lines))) == ["t01", *numbered("l", 20), *numbered("r", 20)]


def test_three_columns_are_read_from_the_left() -> None:
    columns = [column(mark, 40 + at * 180, 80, 25, "goes on with a few words") for at, mark in enumerate("abc")]
    assert marks(read(page(*row_by_row(*columns)))) == [*numbered("a", 25), *numbered("b", 25), *numbered("c", 25)]


def test_a_table_that_spans_the_columns_parts_what_is_above_from_what_is_below() -> None:
    above = row_by_row(column("a", LEFT, 80, 10), column("b", RIGHT, 80, 10))
    table = [
        (x, 240 + row * LEADING, text)
        for row in range(5)
        for x, text in ((LEFT, f"t{row + 1:02} part"), (220, f"price {row} and tax"), (290, "9 euros"), (480, "new"))
    ]
    below = row_by_row(column("c", LEFT, 340, 10), column("d", RIGHT, 340, 10))
    found = marks(read(page(*above, *table, *below)))
    assert found == [*numbered("a", 10), *numbered("b", 10), *numbered("t", 5), *numbered("c", 10), *numbered("d", 10)]


def questionnaire(mark: str, x: float, top: float, leading: float) -> list[Line]:
    """Six questions of two lines, three answers each: short lines, uneven gaps."""
    says = ["If your country allows such a service, who pays", "for it? (Please select all that apply)"]
    gaps = (12.0, 18.0, leading, leading, leading + 10)
    lines, y = list[Line](), top
    for number in range(30):
        at = number % 5
        lines.append((x + 10 * (at > 1), y, f"{mark}{number + 1:02} {says[at] if at < 2 else f'Yes, at level {at}'}"))
        y += gaps[at]
    return lines


@pytest.mark.parametrize(("x", "top", "leading"), [(330, 96, 18), (360, 101, 21)])
def test_boxes_side_by_side_are_read_one_after_the_other(x: float, top: float, leading: float) -> None:
    """The layout reader alone interleaves them line by line."""
    lines = [*questionnaire("q", LEFT, 90, 18), *questionnaire("s", x, top, leading)]
    boxes = [(50.0, 70.0, 250.0, 700.0), (x - 10, 70.0, 250.0, 700.0)]
    assert marks(read(page(*lines, boxes=boxes))) == [*numbered("q", 30), *numbered("s", 30)]


def test_the_rows_of_a_table_stay_together() -> None:
    rows = [
        (x, 90 + at * LEADING, text)
        for at in range(12)
        for x, text in ((LEFT, f"a{at:02} Part number {at}"), (RIGHT, f"b{at:02} costs {at}0 euros"))
    ]
    rules = [(x, 80 + at * LEADING, 250.0, LEADING) for at in range(12) for x in (LEFT - 5, RIGHT - 5)]
    assert marks(read(page(*rows, boxes=rules))) == [f"{mark}{at:02}" for at in range(12) for mark in "ab"]


def test_names_and_prices_without_lines_between_them_stay_together() -> None:
    """The layout reader alone reads all names, then all prices."""
    rows = [
        (x, 90 + at * LEADING, text)
        for at in range(12)
        for x, text in ((LEFT, f"a{at:02} Part number {at}"), (RIGHT, f"b{at:02} costs {at}0 euros"))
    ]
    assert marks(read(page(*rows))) == [f"{mark}{at:02}" for at in range(12) for mark in "ab"]


def test_a_table_whose_cells_hold_several_lines_keeps_its_rows() -> None:
    rows = [
        line
        for at in range(5)
        for mark, x in (("q", LEFT), ("s", RIGHT))
        for line in column(f"{mark}{at}", x, 90 + at * 50, 3, "goes on and on with words to its end")
    ]
    rules = [(x, 80.0 + at * 50, 250.0, 50.0) for at in range(5) for x in (LEFT - 5, RIGHT - 5)]
    found = [mark[:2] for mark in re.findall(r"\b[qs]\d\d\d\b", read(page(*rows, boxes=rules)))]
    assert list(dict.fromkeys(found)) == [f"{mark}{at}" for at in range(5) for mark in "qs"]


def test_running_titles_around_two_columns_are_dropped() -> None:
    def one(number: int) -> list[Line]:
        letter = "abcd"[number - 1]
        words = f"says {letter * 5} and goes on to its end"
        columns = row_by_row(column(letter, LEFT, 100, 12, words), column(letter.upper(), RIGHT, 100, 12, words))
        return [(LEFT, 40.0, "Halden Bikes price list"), *columns, (RIGHT, 800.0, f"Page {number} of 4")]

    text = read(pages(one(number) for number in range(1, 5)))
    assert "Halden Bikes" not in text
    assert "Page" not in text
    assert re.findall(r"\b[A-Da-d]\d\d\b", text) == [
        mark for letter in "abcd" for side in (letter, letter.upper()) for mark in numbered(side, 12)
    ]


def test_a_word_broken_at_the_end_of_a_line_in_a_column_is_whole() -> None:
    left, right = column("l", LEFT, 100, 12), column("r", RIGHT, 100, 12)
    left[4] = (left[4][0], left[4][1], "l05 the frame comes with a long warr-")
    left[5] = (left[5][0], left[5][1], "anty of ten years on all of its parts")
    text = read(page(*row_by_row(left, right)))
    assert "a long warranty of ten years" in text


@dataclass(frozen=True)
class Run:
    text: str
    x: float
    y: float
    width: float
    height: float = 10.0


def nowhere(_: object) -> None:
    return None


runs = st.builds(
    Run,
    st.text("ab ", max_size=9),
    *(st.floats(-50, 700) for _ in range(2)),
    st.floats(0, 600),
    st.floats(0, 40),
)


@given(st.lists(runs, max_size=40))
def test_every_run_with_text_is_in_some_region(boxes: list[Run]) -> None:
    found = regions(boxes, nowhere)
    assert all(any(region.holds(box) for region in found) for box in boxes if box.text.strip() and box.width > 0)


def test_a_page_without_columns_is_one_region() -> None:
    lines = [Run("one line of running text after the other", 60, 80 + at * 13, 400) for at in range(30)]
    assert len(regions(lines, nowhere)) == 1
    assert regions([], nowhere) == []


def test_text_far_off_the_page_costs_no_time_and_no_column() -> None:
    """A damaged file had a run ten million points away, and looking for gutters took seconds."""
    lines = [Run(f"{side}{at} goes on with some words", x, 80 + at * 13, 200) for at in range(9) for side, x in
             (("l", 60), ("r", 300))]  # fmt: skip
    far = [Run("far", 1e7, 100, 50), Run("nowhere", float("nan"), 100, 50), Run("wide", 0, 300, float("inf"))]
    assert regions([*lines, *far], nowhere) == regions(lines, nowhere)
    assert len(regions(lines, nowhere)) == 2


def test_a_text_that_goes_back_and_forth_between_regions_has_mixed_them() -> None:
    found = [Region(0, 0, 200, 500), Region(220, 0, 420, 500)]
    boxes = [Run(f"{side}{row}", x, row * 20, 100) for row in range(8) for side, x in (("l", 10), ("r", 230))]
    by_row = " ".join(box.text for box in boxes)
    by_column = " ".join(sorted(box.text for box in boxes))
    assert mixed(found, boxes, place_in(by_row))
    assert not mixed(found, boxes, place_in(by_column))
