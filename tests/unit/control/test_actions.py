"""What services may record, in one table, so that each counter of an action is there before the action."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ragworks
from ragworks.control.events import LEVELS, actions
from ragworks.policies.scaling import Action
from ragworks.settings import SERVICES

HOME = Path(ragworks.__file__).parent
MADE = {  # names that the code makes from other ones
    *(str(action) for action in Action if action is not Action.NONE),
    *(f"{state}_{what}" for state in ("panic", "rejecting") for what in ("began", "ended")),
}


def recorded() -> Iterator[str]:
    """Each text that is the first argument of something called record."""
    for path in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and _name(node.func) in ("record", "_record", "_tell"):
                constants = (one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant))
                yield from (one for one in constants if isinstance(one, str) and one.isidentifier() and one[0] != "_")


def _name(called: ast.expr) -> str:
    if isinstance(called, ast.Call):  # record(service)(action)
        return _name(called.func)
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def test_every_action_that_the_code_records_is_in_the_table_and_no_other() -> None:
    listed = {action for service in SERVICES for action in actions(service)}
    assert {*recorded(), *MADE} == listed


def test_a_severity_is_that_of_an_action() -> None:
    assert set(LEVELS) <= {action for service in SERVICES for action in actions(service)}
