from __future__ import annotations

from hypothesis import given

from ragworks.text.parse_markdown import parse_markdown
from strategies import markdown


def outline(text: str) -> list[tuple[str, tuple[str, ...], str]]:
    parsed = parse_markdown(text)
    return [(parsed.text[section.start : section.end], section.headings, section.kind) for section in parsed.sections]


def test_headings_of_both_kinds_make_a_path() -> None:
    assert outline("intro\n\nTop\n===\n\n## Sub ##\ntext\n\nOther\n---\nmore") == [
        ("intro", (), "prose"),
        ("Top\n===", ("Top",), "prose"),
        ("## Sub ##\ntext", ("Top", "Sub"), "prose"),
        ("Other\n---\nmore", ("Top", "Other"), "prose"),
    ]


def test_a_heading_is_freed_of_its_markup() -> None:
    assert outline("# **Set up** the [server](x) `now`")[0][1] == ("Set up the server now",)


def test_a_hash_inside_a_fence_is_no_heading() -> None:
    assert outline("~~~\n# code\n```\n~~~\n# Real") == [
        ("~~~\n# code\n```\n~~~", (), "code"),
        ("# Real", ("Real",), "prose"),
    ]


def test_a_fence_that_never_closes_lasts_to_the_end() -> None:
    assert outline("a\n```\n# x\n\ny") == [("a", (), "prose"), ("```\n# x\n\ny", (), "code")]


def test_a_table_is_a_section_of_its_own() -> None:
    assert outline("before\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n\nafter") == [
        ("before", (), "prose"),
        ("| a | b |\n|---|:-:|\n| 1 | 2 |", (), "table"),
        ("after", (), "prose"),
    ]


def test_a_rule_and_a_list_are_no_underlined_heading() -> None:
    assert {headings for _, headings, _ in outline("- item\n---\n\n---\n\ntext\n\n---\n")} == {()}


def test_the_title_of_front_matter_is_taken() -> None:
    parsed = parse_markdown('---\ntitle: "Travel policy"\ndate: 2024\n---\n# One\n')
    assert parsed.title == "Travel policy"
    assert [section.headings for section in parsed.sections] == [(), ("One",)]


def test_line_ends_of_windows_change_nothing() -> None:
    assert [path for _, path, _ in outline("# A\r\n\r\nx\r\n\r\nB\r\n---\r\ny\r\n")] == [("A",), ("A", "B")]


@given(markdown())
def test_sections_are_in_order_and_lose_nothing(text: str) -> None:
    parsed = parse_markdown(text)
    assert parsed.text == text
    covered = 0
    for section in parsed.sections:
        assert not text[covered : section.start].strip()
        covered = section.end
    assert not text[covered:].strip()
