from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.shape_order import Box, in_reading_order


def order(**boxes: Box | None) -> str:
    return "".join(in_reading_order(reversed(boxes), lambda name: boxes[name]))


def test_what_is_higher_is_read_first() -> None:
    assert order(a=(50, 0, 60, 10), b=(0, 20, 10, 30)) == "ab"


def test_two_columns_are_read_one_after_the_other() -> None:
    columns = {"a": (0, 0, 40, 30), "b": (0, 35, 40, 90), "c": (50, 5, 90, 50), "d": (50, 55, 90, 90)}
    assert order(**columns) == "abcd"


def test_cards_in_rows_are_read_row_by_row() -> None:
    cards = {"a": (0, 0, 40, 30), "b": (50, 0, 90, 30), "c": (0, 40, 40, 70), "d": (50, 40, 90, 70)}
    assert order(**cards) == "abcd"


def test_a_heading_across_columns_comes_before_them() -> None:
    assert order(t=(0, 0, 90, 8), a=(0, 10, 40, 60), b=(50, 20, 90, 90)) == "tab"


def test_boxes_that_overlap_a_little_are_apart() -> None:
    assert order(a=(0, 0, 100, 51), b=(0, 50, 100, 100)) == "ab"


def test_what_has_no_place_comes_first() -> None:
    assert order(x=None, a=(0, 0, 1, 1)) == "xa"


numbers = st.integers(-100, 100)


@given(st.lists(st.none() | st.tuples(numbers, numbers, numbers, numbers), max_size=30))
def test_everything_is_read_once(boxes: list[Box | None]) -> None:
    assert sorted(in_reading_order(range(len(boxes)), lambda index: boxes[index])) == list(range(len(boxes)))
