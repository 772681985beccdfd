"""``ragworks simulate``: the server's policies against recorded traffic, on a virtual clock."""

from __future__ import annotations

import typer

from ragworks.cli.simulating_balance import balance
from ragworks.cli.simulating_scale import scale

commands = typer.Typer(no_args_is_help=True, help="Replay recorded traffic through the policies of the server.")
commands.command()(balance)
commands.command()(scale)
