"""``ragworks bench``: proofs on the user's own machine and disk."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any, Literal

import typer

from ragworks.cli.failing import FAILED, run
from ragworks.cli.options import AsJson
from ragworks.cli.output import emit, say, table
from ragworks.cli.progress import showing

commands = typer.Typer(no_args_is_help=True, help="Prove on this machine what ragworks promises.")


@commands.command()
def crash(
    kills: Annotated[int, typer.Option(min=0, metavar="N", help="How many SIGKILLs")] = 200,
    documents: Annotated[int, typer.Option(min=1, metavar="N", help="Documents that come, change and go")] = 300,
    seed: Annotated[int, typer.Option(metavar="N", help="Of texts, requests and planned delays")] = 0,
    model: Annotated[
        Literal["hashing", "bundled"], typer.Option(help="hashing asks about storage; bundled takes the real one")
    ] = "hashing",
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Work on this disk, and keep what was found [default: /tmp]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Kill a server and its workers at random while documents come, change and go; count what was lost or came back.

    The server under test is a process of its own on a new folder; no other server is touched. Exit code 1 if any count
    of faults is not zero; then, and with --data, the folder is kept.
    """
    from shutil import rmtree

    from ragworks.bench.crash import Plan
    from ragworks.bench.crash import crash as killing

    if data:
        data.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="ragworks-crash-", dir=data)).resolve()
    with showing(as_json) as progress:
        plan = Plan(folder, kills, documents, seed, model)
        found = run(killing(plan, lambda done, note: progress("kills", done, kills, note)))
    faulty = any(found["faults"].values())
    if as_json:
        emit(found)
    else:
        _print(found)
    if data or faulty:
        say(f"data folders and logs are in {folder}")
    else:
        rmtree(folder)
    if faulty:
        raise typer.Exit(FAILED)


def _print(found: dict[str, Any]) -> None:
    print(f"{found['machine']}, commit {found['commit']}")
    rows = [(key, found[key]) for key in ("seed", "model", "documents", "chunks", "seconds", "logged_errors")]
    table(("", ""), [*rows, *found["counts"].items()])
    table(("fault", "count"), list(found["faults"].items()))
    for note in found["notes"]:
        print(note)
