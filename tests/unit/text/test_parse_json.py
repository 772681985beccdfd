from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.chunk import chunk
from ragworks.text.classify import JSON, JSON_LINES, MARKDOWN, PLAIN, classify
from ragworks.text.parse_json import parse_json
from ragworks.text.tokens import words

LONG = [{"id": number, "text": f"Passage number {number} about bicycles and their parts."} for number in range(100)]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def outline(text: str) -> list[tuple[str, tuple[str, ...]]]:
    parsed = parse_json(text.encode())
    assert parsed.text == text
    return [(text[section.start : section.end], section.headings) for section in parsed.sections]


def test_the_members_of_an_object_are_sections() -> None:
    assert outline('{"title": "Parts", "count": 2,\n "items": ["bell", "lamp"]}') == [
        ("{", ()),
        ('"title": "Parts",', ()),
        ('"count": 2,', ()),
        ('"items": ["bell", "lamp"]}', ()),
    ]


def test_records_of_a_list_are_sections() -> None:
    assert [text for text, _ in outline('[{"a": 1}, {"a": 2}]')] == ["[", '{"a": 1},', '{"a": 2}]']


def test_a_large_member_is_cut_at_its_own_records_under_its_name() -> None:
    found = outline(json.dumps({"meta": {"version": 1}, "data": {"rows": LONG}}))
    assert found[1] == ('"meta": {"version": 1},', ())
    assert found[-1] == (json.dumps(LONG[-1]) + "]}}", ("data", "rows"))


def test_chunks_end_where_records_end() -> None:
    parsed = parse_json(json.dumps(LONG, indent=2).encode())
    made = list(chunk(parsed, "Parts", words, 120))
    assert len(made) > 10
    assert all(one.text.rstrip("]").rstrip().rstrip(",").endswith("}") for one in made)


def test_lines_of_json_are_sections() -> None:
    text = "\n".join(json.dumps(record) for record in LONG) + "\n"
    parsed = parse_json(text.encode())
    assert (parsed.text, parsed.media_type, len(parsed.sections)) == (text, JSON_LINES, 100)
    assert parsed.text[parsed.sections[4].start : parsed.sections[4].end] == json.dumps(LONG[4])


@pytest.mark.parametrize("name", ["title", "Name", "headline"])
def test_the_title_of_an_object_is_its_title(name: str) -> None:
    assert (
        parse_json(json.dumps({"id": 7, name: "Travel policy", "x": {"title": "no"}}).encode()).title == "Travel policy"
    )
    assert parse_json(json.dumps([{name: "Travel policy"}]).encode()).title is None


@pytest.mark.parametrize(
    "text", ['{"a": 1,}', '{"a": 1', "hello", '{"a": 1} and more', '{"a": 1}\n{"b": \n', "[" * 100_000]
)
def test_what_is_no_json_in_spite_of_its_name_is_plain_text_with_a_warning(text: str) -> None:
    parsed = parse_json(text.encode())
    assert (parsed.text, parsed.media_type) == (text, PLAIN)
    assert "read as plain text" in parsed.warnings[0]


@pytest.mark.parametrize("digits", [10, 10_000])
def test_numbers_may_have_any_length(digits: int) -> None:
    assert parse_json(b"[" + b"9" * digits + b", 1e999]").media_type == JSON


@pytest.mark.parametrize("name", ["a.json", "a.txt", "a.md", "a"])
@pytest.mark.parametrize("text", ['{"a": 1}', '\n[ {"a b\\"": 1}]', '{"a":1}\n{"a":2}'])
def test_json_is_recognised_under_any_name(text: str, name: str) -> None:
    assert classify(text.encode(), name) == JSON


def test_markdown_that_begins_with_a_bracket_is_markdown() -> None:
    assert classify(b"[link](x)\n\n[1]: http://example.org", "a.md") == MARKDOWN
    assert classify(b"[[page]] {curly}", "a.txt") == PLAIN


@given(values, st.sampled_from([None, 1]))
def test_any_json_is_read_whole_and_as_it_came(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    parsed = parse_json(text.encode("utf-8", "surrogatepass"))
    assert parsed.text == text
    assert parsed.media_type == JSON
    held = "".join(text[section.start : section.end] for section in parsed.sections)
    assert "".join(held.split()) == "".join(text.split())


def test_the_work_grows_with_the_text_and_not_with_its_depth() -> None:
    text = '{"a": ' * 400 + '"' + "x " * 500_000 + '"' + "}" * 400
    assert parse_json(text.encode()).media_type == JSON
