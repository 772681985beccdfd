"""``ragworks simulate``: the server's policies against recorded traffic, on a virtual clock."""

from __future__ import annotations

import typer

commands = typer.Typer(no_args_is_help=True, help="Replay recorded traffic through the policies of the server.")
