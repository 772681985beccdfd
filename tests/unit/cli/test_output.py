"""What is printed where there is no terminal."""

from __future__ import annotations

from ragworks.cli.output import one_line, table


def test_a_table_without_a_terminal_is_plain_aligned_and_not_cut_off(capsys):
    table(("name", "why"), [("a.md", "x" * 200), ("longer.md", None)])
    assert capsys.readouterr().out.splitlines() == ["name       why", f"a.md       {'x' * 200}", "longer.md"]


def test_a_cell_that_looks_like_markup_is_printed_as_it_is(capsys):
    table(("text",), [("[red]1[/red]",)])
    assert "[red]1[/red]" in capsys.readouterr().out


def test_one_line_cuts_and_says_so():
    assert one_line("a\n b\tc", 10) == "a b c"
    assert one_line("abcdef", 4) == "abc…"
