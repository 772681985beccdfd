"""Progress where there is no terminal."""

from __future__ import annotations

from ragworks.cli.progress import showing


def test_without_a_terminal_every_tenth_is_one_line_on_stderr(capsys):
    with showing() as progress:
        for done in range(101):
            progress("ingesting", done, 100)
            progress("ingesting", done, 100, note="2 parsing")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"ingesting {done}/100" for done in range(10, 101, 10)]


def test_a_quiet_command_shows_nothing(capsys):
    with showing(quiet=True) as progress:
        progress("ingesting", 100, 100)
    assert capsys.readouterr() == ("", "")
