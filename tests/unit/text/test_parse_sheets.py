from __future__ import annotations

import contextlib
import datetime
import io
from typing import Any

import pytest
import xlsxwriter

from documents import altered, binary_workbook, entry, old_workbook, open_row, open_sheets, workbook
from ragworks.errors import CorruptDocument, DocumentTooLarge, EncryptedDocument
from ragworks.text import parse_sheets as module
from ragworks.text import sheet_extent
from ragworks.text.classify import ODS, XLS, XLSB, XLSX
from ragworks.text.parse_sheets import parse_sheets


def made(build: Any) -> bytes:
    """A workbook by the calls of ``build(workbook, sheet)``."""
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True}) as book:
        build(book, book.add_worksheet("Prices"))
    return buffer.getvalue()


def test_every_sheet_is_a_heading_with_its_table() -> None:
    parsed = parse_sheets(
        workbook({"Parts": [["Part", "EUR"], ["Bell", 9]], "Empty": [], "Staff": [["Name", "Since"], ["Ann", 2020]]}),
        XLSX,
    )
    assert parsed.text.split("\n\n") == [
        "# Parts",
        "| Part | EUR |\n| --- | --- |\n| Bell | 9 |",
        "# Staff",
        "| Name | Since |\n| --- | --- |\n| Ann | 2020 |",
    ]
    assert [(section.headings, section.kind) for section in parsed.sections] == [
        (("Parts",), "prose"),
        (("Parts",), "table"),
        (("Staff",), "prose"),
        (("Staff",), "table"),
    ]


def test_values_are_printed_as_a_person_reads_them() -> None:
    def build(book: xlsxwriter.Workbook, sheet: Any) -> None:
        day, moment, clock = (
            book.add_format({"num_format": form}) for form in ("yyyy-mm-dd", "yyyy-mm-dd hh:mm", "hh:mm")
        )
        sheet.write_row(0, 0, [1.0, 0.1 + 0.2, -2.5, True, " padded ", 123456789012.0])
        sheet.write_datetime(1, 0, datetime.datetime.fromisoformat("2024-05-01"), day)
        sheet.write_datetime(1, 1, datetime.datetime.fromisoformat("2024-05-01 13:30"), moment)
        sheet.write_datetime(1, 2, datetime.time(7, 15), clock)

    rows = parse_sheets(made(build), XLSX).text.split("\n")[2:]
    assert rows[0] == "| 1 | 0.3 | -2.5 | TRUE | padded | 123456789012 |"
    assert rows[2] == "| 2024-05-01 | 2024-05-01 13:30:00 | 07:15:00 |  |  |  |"


def test_blank_rows_and_columns_separate_tables() -> None:
    rows = [
        ["a", "b", "", "x", "y"],
        ["1", "2", "", "8", "9"],
        ["", "", "", "", ""],
        ["Note below.", "", "", "", ""],
        ["", "", "", "", ""],
        ["c", "d", "", "", ""],
        ["3", "4", "", "", ""],
    ]
    assert parse_sheets(workbook({"S": rows}), XLSX).text.split("\n\n") == [
        "# S",
        "| a | b |\n| --- | --- |\n| 1 | 2 |",
        "| x | y |\n| --- | --- |\n| 8 | 9 |",
        "Note below.",
        "| c | d |\n| --- | --- |\n| 3 | 4 |",
    ]


@pytest.mark.parametrize("merged", [False, True])
def test_a_title_above_tables_is_neither_their_header_nor_their_bridge(merged: bool) -> None:
    def build(_: object, sheet: Any) -> None:
        if merged:
            sheet.merge_range(0, 0, 0, 4, "Prices of May")
        else:
            sheet.write(0, 0, "Prices of May")
        sheet.write_row(1, 0, ["Part", "EUR", "", "Part", "USD"])
        sheet.write_row(2, 0, ["Bell", 9, "", "Bell", 10])

    assert parse_sheets(made(build), XLSX).text.split("\n\n")[1:] == [
        "Prices of May",
        "| Part | EUR |\n| --- | --- |\n| Bell | 9 |",
        "| Part | USD |\n| --- | --- |\n| Bell | 10 |",
    ]


def test_rows_of_equal_values_are_no_titles() -> None:
    assert parse_sheets(workbook({"S": [[0, 0], [0, 0], [0, 1]]}), XLSX).text.count("| 0 |") == 3


@pytest.mark.parametrize("offset", [0, 3])
def test_a_merged_cell_speaks_for_every_row_and_column_that_it_covers(offset: int) -> None:
    def build(_: object, sheet: Any) -> None:
        at = offset
        sheet.write_row(at, at, ["Region", "Part", "EUR"])
        sheet.merge_range(at + 1, at, at + 2, at, "North")
        sheet.write_row(at + 1, at + 1, ["Bell", 9])
        sheet.write_row(at + 2, at + 1, ["Lamp", 20])

    assert parse_sheets(made(build), XLSX).text.split("\n")[4:] == ["| North | Bell | 9 |", "| North | Lamp | 20 |"]


def test_merged_ranges_that_overlap_without_end_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CELLS", 1000)
    ranges = "".join('<mergeCell ref="A1:J100"/>' for _ in range(5000))
    data = workbook({"S": [["x"] * 10] * 100})
    sheet = "xl/worksheets/sheet1.xml"
    xml = altered(
        data,
        {sheet: entry(data, sheet).decode().replace("</sheetData>", f"</sheetData><mergeCells>{ranges}</mergeCells>")},
    )
    assert parse_sheets(xml, XLSX).text.count("x") == 1000


def test_hidden_sheets_are_left_out_with_a_warning() -> None:
    def build(book: xlsxwriter.Workbook, sheet: Any) -> None:
        sheet.write(0, 0, "shown")
        secret = book.add_worksheet("Secret")
        secret.write(0, 0, "hidden")
        secret.hide()

    parsed = parse_sheets(made(build), XLSX)
    assert "hidden" not in parsed.text
    assert parsed.warnings == ("the hidden sheet 'Secret' was left out",)


def test_a_sheet_of_charts_is_passed_by() -> None:
    def build(book: xlsxwriter.Workbook, sheet: Any) -> None:
        sheet.write(0, 0, 5)
        chart = book.add_chart({"type": "line"})
        chart.add_series({"values": "=Prices!$A$1:$A$1"})
        book.add_chartsheet("Chart").set_chart(chart)

    assert parse_sheets(made(build), XLSX).text == "# Prices\n\n5"


def test_title_and_author_are_those_of_the_workbook() -> None:
    parsed = parse_sheets(workbook({"S": [["x"]]}, title="Price list"), XLSX)
    assert parsed.title == "Price list"
    assert parsed.properties["author"] == "Ann Lee"
    assert parsed.properties["created"].startswith("20")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (old_workbook({"Parts": [["Part", "EUR"], ["Bell", 9.5]]}), XLS),
        (binary_workbook({"Parts": [["Part", "EUR"], ["Bell", "9.5"]]}), XLSB),
        (open_sheets({"Parts": open_row("Part", "EUR") + open_row("Bell", "9.5")}), ODS),
    ],
)
def test_other_kinds_of_workbooks_read_the_same(data: bytes, kind: str) -> None:
    assert parse_sheets(data, kind).text == "# Parts\n\n| Part | EUR |\n| --- | --- |\n| Bell | 9.5 |"


FAR = ' table:number-rows-repeated="100000" table:number-columns-repeated="1000"'


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (made(lambda _, sheet: (sheet.write(0, 0, "a"), sheet.write(1_048_575, 16_383, "z"))), XLSX),
        (
            altered(
                binary_workbook({"S": [["a"]]}),
                {
                    "xl/worksheets/far.bin": b"\x00\x04\xff\xff\x0f\x00\x06\x04\0\0\0\0"
                    b"\x00\x04\0\0\0\0\x06\x04\xff\x3f\0\0"
                },
            ),
            XLSB,
        ),
        (open_sheets({"S": open_row("a", attributes=FAR)}), ODS),
        (
            open_sheets(
                {"S": open_row("a") + '<table:table-row table:number-rows-repeated="900000"/>' + open_row(*"abcdef")}
            ),
            ODS,
        ),
    ],
)
def test_a_sheet_that_stretches_over_too_many_cells_is_refused_before_they_are_made(data: bytes, kind: str) -> None:
    """The library makes room for the whole rectangle: two cells in opposite corners ended the process."""
    with pytest.raises(DocumentTooLarge, match="at most 5000000 cells"):
        parse_sheets(data, kind)


def test_whole_columns_that_have_a_format_and_no_value_take_no_room() -> None:
    def build(book: xlsxwriter.Workbook, sheet: Any) -> None:
        grey = book.add_format({"bg_color": "gray"})
        sheet.write(0, 0, "a")
        sheet.write_blank(1_048_575, 16_383, None, grey)

    assert parse_sheets(made(build), XLSX).text == "# Prices\n\na"


def test_cells_are_found_in_pieces_however_these_are_cut() -> None:
    xml = b"".join(b'<c r="%c%d" s="1"><v>1</v></c>' % (65 + at % 26, at) for at in range(1, 200))
    for size in (40, 64, 1000):
        pieces = [xml[at : at + size] for at in range(0, len(xml), size)]
        assert len(list(sheet_extent._xlsx_cells(pieces))) == 199


def test_one_text_in_millions_of_cells_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXT", 10_000)
    with pytest.raises(DocumentTooLarge, match="more than 10000 characters"):
        parse_sheets(workbook({"S": [["x" * 1000]] * 11}), XLSX)


def test_entities_that_multiply_stay_as_small_as_they_are() -> None:
    bomb = (
        "<!DOCTYPE x ["
        + "".join(f'<!ENTITY e{at} "{f"&e{at - 1};" * 10 if at else "lol"}">' for at in range(12))
        + "]>"
    )
    data = workbook({"S": [["x"]]}, title="t")
    for name in ("xl/worksheets/sheet1.xml", "docProps/core.xml", "xl/sharedStrings.xml"):
        xml = (
            entry(data, name).decode().replace("?>", f"?>{bomb}", 1).replace(">t<", ">&e11;<").replace(">x<", ">&e11;<")
        )
        with contextlib.suppress(CorruptDocument):
            assert len(parse_sheets(altered(data, {name: xml}), XLSX).text) < 100


def test_an_encrypted_workbook_of_the_old_kind_says_so() -> None:
    data = old_workbook({"S": [["x"]]})
    # A FILEPASS record right after the first one.
    at = data.index(b"\x09\x08\x10\x00") + 20
    assert data[at : at + 2] == b"\xe1\x00"
    with pytest.raises(EncryptedDocument, match="password"):
        parse_sheets(data[:at] + b"\x2f\x00\x02\x00\x01\x00" + data[at + 6 :], XLS)


def test_an_encrypted_open_workbook_says_so() -> None:
    manifest = (
        "<manifest:manifest><manifest:file-entry><manifest:encryption-data/></manifest:file-entry></manifest:manifest>"
    )
    with pytest.raises(EncryptedDocument, match="password"):
        parse_sheets(altered(open_sheets({"S": open_row("x")}), {"META-INF/manifest.xml": manifest}), ODS)


@pytest.mark.timeout(20)
def test_an_open_workbook_that_was_cut_off_inside_is_refused() -> None:
    """The library waits for the end of the table, and waits."""
    data = open_sheets({"S": open_row("x") * 3})
    with pytest.raises(CorruptDocument, match="broken"):
        parse_sheets(altered(data, {"content.xml": entry(data, "content.xml").decode()[:-120]}), ODS)


def test_chains_of_an_old_workbook_that_go_in_a_circle_are_refused() -> None:
    """One wrong byte, and the library followed them until the memory was full."""
    data = bytearray(old_workbook({"S": [["x"]]}))
    fat = 512 * (1 + int.from_bytes(data[76:80], "little"))
    first = int.from_bytes(data[48:52], "little")
    data[fat + 4 * first : fat + 4 * first + 4] = data[48:52]
    with pytest.raises(CorruptDocument, match="circle"):
        parse_sheets(bytes(data), XLS)


def test_an_old_workbook_with_an_impossible_extent_is_refused() -> None:
    data = old_workbook({"S": [["x"]]})
    at = data.index(b"\x00\x02\x0e\x00") + 4
    with pytest.raises(CorruptDocument, match="impossible extent"):
        parse_sheets(data[:at] + b"\x09\0\0\0\x01\0\0\0" + data[at + 8 :], XLS)


def test_a_broken_sheet_costs_that_sheet() -> None:
    data = workbook({"Good": [["kept"]], "Bad": [["lost"]]})
    parsed = parse_sheets(altered(data, {"xl/worksheets/sheet2.xml": "<worksheet><sheetData><row><c t='s'><v>x"}), XLSX)
    assert "kept" in parsed.text
    assert "the sheet 'Bad' is broken" in parsed.warnings[0]


def test_a_workbook_without_one_sound_sheet_is_broken() -> None:
    data = workbook({"Bad": [["lost"]]})
    with pytest.raises(CorruptDocument, match="'Bad'"):
        parse_sheets(altered(data, {"xl/worksheets/sheet1.xml": "<worksheet><sheetData><row><c t='s'><v>x"}), XLSX)
