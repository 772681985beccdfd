"""Help of every command, and the page that is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragworks.cli import main, reference

COMMANDS = [
    "serve",
    "ingest",
    "search",
    "ask",
    "jobs",
    "jobs show",
    "jobs retry",
    "jobs cancel",
    "status",
    "doctor",
    "collections list",
    "documents list",
    "documents delete",
    "eval",
    "bench crash",
    "simulate balance",
    "config show",
    "simulate scale",
    "plan",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    assert "Usage: ragworks" in capsys.readouterr().out


@pytest.mark.parametrize("command", [one for one in COMMANDS if one != "serve"])
def test_every_command_that_prints_can_print_json(command, capsys):
    main([*command.split(), "--help"])
    assert "--json" in capsys.readouterr().out


def test_the_reference_page_is_what_help_prints():
    """``scripts/docs`` writes it anew."""
    page = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
    assert page.read_text(encoding="utf-8") == reference.page()
