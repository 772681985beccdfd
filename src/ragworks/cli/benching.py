"""``ragworks bench``: proofs on the user's own machine and disk."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ragworks.cli.failing import FAILED, run
from ragworks.cli.options import AsJson, Config, Data, InCollection, Place, Url
from ragworks.cli.output import emit, say, table
from ragworks.cli.progress import Progress, showing
from ragworks.errors import InvalidInput

if TYPE_CHECKING:
    from ragworks.bench.profile import Wanted
    from ragworks.simulator.profiles import Profile

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


@commands.command()
def profile(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the profile is written")],
    kind: Annotated[Literal["search", "ask"], typer.Option(help="What is asked for")] = "search",
    calls: Annotated[int, typer.Option(min=10, metavar="N", help="Questions one after another")] = 200,
    questions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Questions, one a line [default: words of the documents]"),
    ] = None,
    collection: InCollection = "default",
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Measure what answers cost this machine, for `ragworks plan`: seconds by service, and answers a second at once.

    Asks the server that is named or runs on the data folder; where none is named and none runs, one of its own, on a
    temporary folder with notes of made-up words. First so many questions one after another, then again with 2, 4, 8 and
    16 under way at once, in five rounds. Every question is new to the cache: its letters are large or small by chance,
    which a model reads alike. Nobody else should use the machine meanwhile.
    """
    from ragworks.simulator.profiles import written

    if output.is_dir() or not output.parent.is_dir():  # said before it has taken its time
        raise InvalidInput(f"--output must be a file in a folder that is there, found {output}")
    place = Place(data, url, config)
    settings = place.settings()
    asked = _lines(questions) if questions else ()
    slots = {
        name: getattr(settings, name).endpoint.concurrency for name in ("embeddings_service", "generation_service")
    }
    from ragworks.bench.profile import Wanted

    wanted = Wanted(kind, calls, collection, asked, slots)
    with showing(as_json) as progress:
        found = written(run(_profile(place, settings.server.data, wanted, progress)))
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if as_json:
        emit(found)
    else:
        _print_profile(found, output)


async def _profile(place: Place, folder: str, wanted: Wanted, progress: Progress) -> Profile:
    from ragworks.bench.profile import own_server
    from ragworks.bench.profile import profile as measured
    from ragworks.client import live_server

    def on_call(done: int, total: int) -> None:
        progress("questions", done, total)

    if address := place.url or await live_server(folder):
        return await measured(address, wanted, on_call)
    if place.data:
        raise InvalidInput(f"no server runs on {folder}; start `ragworks serve --data {folder}`, or leave out --data")
    say("no server runs here: one of its own is measured, on a temporary folder")
    with TemporaryDirectory(prefix="ragworks-profile-") as temporary:
        arguments = ("--config", place.config) if place.config else ()
        async with own_server(Path(temporary), arguments) as address:
            return await measured(address, wanted, on_call)


def _lines(file: Path) -> tuple[str, ...]:
    try:
        found = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read as questions, one a line: {error}") from error
    if not found:
        raise InvalidInput(f"{file} holds no question; expected one a line")
    return found


def _print_profile(found: dict[str, Any], output: Path) -> None:
    from statistics import mean, median

    print(f"{found['machine']}: {found['kind']} at {found['server']}")
    table(
        ("service", "lives", "replicas", "mean ms", "cpu ms", "memory MB"),
        [
            (
                name,
                one["lives"],
                one["replicas"],
                f"{1e3 * mean(one['service_s']):.1f}",
                None if one["cpu_s"] is None else f"{1e3 * one['cpu_s']:.1f}",
                None if one["memory_bytes"] is None else f"{one['memory_bytes'] / 1e6:.0f}",
            )
            for name, one in found["services"].items()
        ],
    )
    for many, rates in found["at_once"].items():
        print(f"{many} at once: {median(rates):.1f} answers a second ({min(rates):.1f} to {max(rates):.1f})")
    say(f"written to {output}; next: ragworks plan --profile {output} --rate X --p95 S")


def _print(found: dict[str, Any]) -> None:
    print(f"{found['machine']}, commit {found['commit']}")
    rows = [(key, found[key]) for key in ("seed", "model", "documents", "chunks", "seconds", "logged_errors")]
    table(("", ""), [*rows, *found["counts"].items()])
    table(("fault", "count"), list(found["faults"].items()))
    for note in found["notes"]:
        print(note)
