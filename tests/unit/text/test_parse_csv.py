from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworks.text.classify import CSV, PLAIN, classify
from ragworks.text.parse_csv import parse_csv, sniffed

TABLE = "| Part | EUR |\n| --- | --- |\n| Bell | 9 |\n| Lamp | 20 |"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_rows_become_one_table(delimiter: str, line_end: str) -> None:
    text = line_end.join(delimiter.join(row) for row in (("Part", "EUR"), ("Bell", "9"), ("Lamp", "20")))
    parsed = parse_csv(text.encode())
    assert parsed.text == TABLE
    assert [(section.kind, section.start, section.end) for section in parsed.sections] == [("table", 0, len(TABLE))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "shift_jis"])
def test_any_encoding_will_do(encoding: str) -> None:
    text = "名前,年齢,住所\n佐藤太郎,30,東京\n三木英子,25,大阪\n高橋淳,35,名古屋\n"
    assert classify(text.encode(encoding), "a.csv") == CSV
    assert parse_csv(text.encode(encoding)).text.split("\n")[3] == "| 三木英子 | 25 | 大阪 |"


def test_quotes_protect_delimiters_quotes_and_line_ends() -> None:
    parsed = parse_csv(b'name,note\nBell,"loud, ""clear""\nand small"\nLamp,"a|b"\n')
    assert parsed.text.split("\n")[2:] == ['| Bell | loud, "clear" and small |', "| Lamp | a\\|b |"]


@pytest.mark.parametrize("count", [20, 20_000])
def test_a_quote_that_never_closes_does_not_swallow_the_rows_behind_it(count: int) -> None:
    rows = "".join(f"part {number},{number}\n" for number in range(count))
    parsed = parse_csv(f'name,eur\n"5 inch,3\n{rows}'.encode())
    assert parsed.text.endswith(f"| part {count - 1} | {count - 1} |")
    assert parsed.text.count("\n") == count + 2


def test_decimal_commas_do_not_pass_for_delimiters() -> None:
    assert parse_csv(b"a;b\n1,5;2,5\n3,0;4,0\n").text.endswith("| 3,0 | 4,0 |")


def test_the_delimiter_that_a_file_announces_is_taken() -> None:
    assert parse_csv(b"sep=#\r\na#b\r\n1#2\r\n").text == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_short_and_long_rows_lose_nothing() -> None:
    parsed = parse_csv(b"a,b\n1\n1,2,3\n" + b"4,5\n" * 9)
    assert parsed.text.split("\n")[2:4] == ["| 1 |  |", "| 1 | 2 | 3 |"]


@pytest.mark.parametrize("text", ["one column\nof words\n", "Dear Ann,\nthank you.\n\nYours, Bob", "a,b", "\n\n"])
def test_what_is_no_table_in_spite_of_its_name_stays_as_it_came(text: str) -> None:
    assert parse_csv(text.encode()).text == text
    assert parse_csv(text.encode()).media_type == PLAIN


def test_rows_that_cannot_be_told_apart_are_plain_text_with_a_warning() -> None:
    parsed = parse_csv(b"a,b\n" * 200 + b"x" * 200_000 + b",1\n" + b"c,d\n")
    assert parsed.media_type == PLAIN
    assert "field larger than field limit" in parsed.warnings[0]


@pytest.mark.parametrize("name", ["export.xls", "data.txt", "data"])
def test_a_table_is_recognised_under_any_name(name: str) -> None:
    text = "id,part,eur\n" + "".join(f"{number},part {number},{number}.50\n" for number in range(10))
    assert classify(text.encode(), name) == CSV


@pytest.mark.parametrize(
    "text",
    [
        "The frame, of steel, is red.\nThe bell, of brass, is loud.\nThe lamp, of glass, is bright.\n" * 3,
        "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 9,
        "def f(a,b,c):\n    return a\n" * 5,
        "a,b,c\n1,2,3\n",
        "2024-05-01 10:00:00,123 INFO started\n" * 9,
        "\t- indented\n" * 9,
    ],
)
def test_prose_code_logs_and_lists_are_no_tables(text: str) -> None:
    assert sniffed(text, named=False) is None


@given(st.text("ab,;\t|\"\n\r '", max_size=200), st.booleans())
def test_sniffing_takes_any_text(text: str, named: bool) -> None:
    assert sniffed(text, named=named) in (None, *((one, quoting) for one in ",;\t|" for quoting in (0, 3)))


@given(st.text('abc,;\t|"\\\n\r ', max_size=200))
def test_no_letter_is_lost_or_turned_around(text: str) -> None:
    kept = parse_csv(text.encode()).text
    assert [letter for letter in kept if letter in "abc"] == [letter for letter in text if letter in "abc"]


def test_memory_stays_within_a_few_times_the_file() -> None:
    data = b"number,name,comment\n" + b"".join(b"%d,part %d,a comment of some length\n" % (n, n) for n in range(50_000))
    tracemalloc.start()
    parse_csv(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(data)
