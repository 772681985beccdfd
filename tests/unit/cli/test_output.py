"""What is printed where there is no terminal."""

from __future__ import annotations

import sys

from ragworks.cli.output import harmless, one_line, say, table


def test_a_table_without_a_terminal_is_plain_aligned_and_not_cut_off(capsys):
    table(("name", "why"), [("a.md", "x" * 200), ("longer.md", None)])
    assert capsys.readouterr().out.splitlines() == ["name       why", f"a.md       {'x' * 200}", "longer.md"]


def test_a_cell_that_looks_like_markup_is_printed_as_it_is(capsys):
    table(("text",), [("[red]1[/red]",)])
    assert "[red]1[/red]" in capsys.readouterr().out


def test_one_line_cuts_and_says_so():
    assert one_line("a\n b\tc", 10) == "a b c"
    assert one_line("abcdef", 4) == "abc…"


def test_a_document_cannot_steer_the_terminal(capsys):
    """A passage with an escape sequence was printed as it came: it could clear the screen or write to the clipboard."""
    table(("text",), [("\x1b]52;c;ZXZpbA==\x07 \x9b2J",)])
    say("\x1b[2J")
    captured = capsys.readouterr()
    assert not {"\x1b", "\x07", "\x9b"} & set(captured.out + captured.err)
    assert harmless("a\r\n\tb") == "a\n\tb"


def test_a_jobs_id_stays_whole_on_a_terminal_of_80_columns(capsys, monkeypatch):
    """`ragworks jobs` showed `job_e039…`: nothing that `ragworks jobs ID` could be called with."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    job = f"job_{'e' * 32}"
    table(("job", "status", "collection"), [(job, "completed", "a-collection-with-a-rather-long-name" * 2)])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(job) for line in lines)
    assert max(map(len, lines)) <= 80
