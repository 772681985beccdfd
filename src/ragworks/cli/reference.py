"""The reference page of the command line, made from what the commands say of themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer

INTRODUCTION = """# Command line

Made from the commands themselves by `scripts/docs`; `ragworks COMMAND --help` says the same. Results go to stdout, all
else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage or settings, 130 interrupted.
"""


def page() -> str:
    """``docs/reference/cli.md``: ``ragworks`` and every command below it, with arguments and options."""
    from ragworks.cli import application

    return INTRODUCTION + "".join(_sections(typer.main.get_command(application), "ragworks"))


def _sections(command: Any, name: str) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    children = getattr(command, "commands", {})
    usage = " ".join([name, *map(_usage, arguments), *(["COMMAND"] if children else [])])
    yield f"\n## {name}\n\n{_prose(command)}\n\n`{usage} [OPTIONS]`\n\n"
    yield "| | |\n|---|---|\n"
    for one in [*arguments, *options]:
        yield f"| {_called(one)} | {_escaped(one.help or '')}{_default(one)} |\n"
    for child in children.values():
        yield from _sections(child, f"{name} {child.name}")


def _prose(command: Any) -> str:
    return inspect.cleandoc(command.help or command.callback.__doc__ or "")


def _usage(argument: Any) -> str:
    word = _word(argument) + ("..." if argument.nargs == -1 else "")
    return word if argument.required else f"[{word}]"


def _called(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_word(parameter)}`"
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} `{_escaped(_word(parameter))}`"


def _word(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper().replace("_", "-"))


def _default(parameter: Any) -> str:
    return "" if parameter.default in (None, False) or parameter.required else f" [default: {_shown(parameter)}]"


def _shown(parameter: Any) -> str:
    return parameter.opts[0] if parameter.is_flag else str(parameter.default)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
