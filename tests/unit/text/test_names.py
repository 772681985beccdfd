from __future__ import annotations

import pytest
from hypothesis import given

from ragworks.errors import InvalidInput
from ragworks.text.names import clean_name, ending, stem
from strategies import anything


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("plan.pdf", "plan.pdf"),
        ("a\\b\\plan.pdf", "a/b/plan.pdf"),
        ("C:\\Users\\ann\\plan.pdf", "Users/ann/plan.pdf"),
        ("/etc/passwd", "etc/passwd"),
        ("../../etc/./passwd", "etc/passwd"),
        ("a//b", "a/b"),
        ("cafe\u0301.txt", "caf\u00e9.txt"),
        ("tab\there\x00.txt", "tabhere.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
    ],
)
def test_a_name_becomes_relative_and_readable(name: str, cleaned: str) -> None:
    assert clean_name(name) == cleaned


@pytest.mark.parametrize("name", ["", " ", "/", "..", "../..", "C:\\", "\x00"])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        clean_name(name)


@given(anything)
def test_a_clean_name_stays_as_it_is(name: str) -> None:
    try:
        cleaned = clean_name(name)
    except InvalidInput:
        return
    assert clean_name(cleaned) == cleaned
    assert not cleaned.startswith("/")
    assert ".." not in cleaned.split("/")


def test_a_stem_reads_as_a_title() -> None:
    assert stem("hr/travel_policy 2024.final.pdf") == "travel policy 2024.final"
    assert stem(".bashrc") == ".bashrc"


def test_an_ending_is_lower_case_and_belongs_to_the_last_part() -> None:
    assert (ending("a.b/Report.PDF"), ending("a.b/README"), ending(".md")) == ("pdf", "", "")
