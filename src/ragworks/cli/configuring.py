"""``ragworks config show``: the settings in force, and what they mean."""

from __future__ import annotations

from typing import Any

import typer

from ragworks.cli.options import AsJson, Config, Data, Place
from ragworks.cli.output import emit, table

SECRET_ENDINGS = ("api_key", "secret", "password", "access_token")
HIDDEN = "(hidden)"

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at the settings.")


@commands.callback()
def group() -> None:
    """Keeps ``show`` a command of its own while it is the only one."""


@commands.command()
def show(data: Data = None, config: Config = None, as_json: AsJson = False) -> None:
    """Print every setting in force: defaults, then the file, then RAGWORKS_SECTION__KEY; secrets are hidden."""
    from ragworks.settings import describe

    rows = [(key, shown(key, value), doc) for key, value, doc in describe(Place(data, None, config).settings())]
    if as_json:
        emit({"settings": [{"key": key, "value": value, "doc": doc} for key, value, doc in rows]})
    else:
        table(("setting", "value", "meaning"), [(key, _written(value), doc) for key, value, doc in rows])


def shown(key: str, value: Any) -> Any:
    """The value, or that it is hidden if the key names a secret that is set."""
    return HIDDEN if value and key.endswith(SECRET_ENDINGS) else value


def _written(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
