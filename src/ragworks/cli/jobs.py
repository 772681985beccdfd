"""``ragworks jobs``: what was submitted, how far it is, what failed and why."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ragworks.cli.failing import run
from ragworks.cli.options import AsJson, Config, Data, Place, Url
from ragworks.cli.output import emit, say, table
from ragworks.cli.progress import left

if TYPE_CHECKING:
    from ragworks.client import Client

JobId = Annotated[str, typer.Argument(metavar="ID", help="Job")]
Limit = Annotated[int, typer.Option(min=1, max=100, metavar="N", help="How many jobs")]


class IdOrCommand(TyperGroup):
    """``jobs ID`` means ``jobs show ID``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_id = bool(args) and not args[0].startswith("-") and args[0] not in self.commands
        return super().parse_args(ctx, ["show", *args] if is_id else args)


commands = typer.Typer(
    cls=IdOrCommand,
    invoke_without_command=True,
    rich_markup_mode=None,
    help="List jobs, newest first; `jobs ID` shows one with its documents.",
)


@commands.callback()
def bare(
    ctx: typer.Context,
    limit: Limit = 20,
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    if ctx.invoked_subcommand is None:
        run(_list(Place(data, url, config), limit, as_json))


@commands.command("list")
def list_jobs(
    limit: Limit = 20, data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False
) -> None:
    """List jobs, newest first."""
    run(_list(Place(data, url, config), limit, as_json))


@commands.command()
def show(job_id: JobId, data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False) -> None:
    """Show a job: each document with its state and, if it failed, why."""
    run(_one(Place(data, url, config), "job", job_id, as_json))


@commands.command()
def dead(data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False) -> None:
    """List the dead letters: documents whose last attempt failed, over all jobs."""
    run(_dead(Place(data, url, config), as_json))


@commands.command()
def retry(
    job_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Job")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every dead letter, of all jobs")] = False,
    data: Data = None,
    url: Url = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Queue the failed documents of a job again, or with --all those of every job."""
    if everything == bool(job_id):
        raise typer.BadParameter("name one job, or give --all")
    place = Place(data, url, config)
    run(_one(place, "retry", job_id, as_json) if job_id else _retry_all(place, as_json))


@commands.command()
def cancel(job_id: JobId, data: Data = None, url: Url = None, config: Config = None, as_json: AsJson = False) -> None:
    """Cancel what has not ended; what is in stays in."""
    run(_one(Place(data, url, config), "cancel", job_id, as_json))


async def _list(place: Place, limit: int, as_json: bool) -> None:
    async with place.client() as client:
        found = await client.jobs(limit)
    if as_json:
        emit({"data": found})
    elif not found:
        say("no jobs yet; `ragworks ingest PATH` makes one")
    else:
        table(("job", "status", "done", "started", "collection"), [_row(job) for job in found])


async def _dead(place: Place, as_json: bool) -> None:
    async with place.client() as client:
        found = await client.dead_letters()
    if as_json:
        emit({"data": found})
    elif not found:
        say("no dead letters: every document is in, or on its way")
    else:
        rows = [(one["name"], one["collection"], one["attempts"], one["job_id"], _why(one)) for one in found]
        table(("document", "collection", "attempts", "job", ""), rows)


async def _retry_all(place: Place, as_json: bool) -> None:
    async with place.client() as client:
        done = await client.retry_dead()
    if as_json:
        emit(done)
    else:
        rest = f"; {done['left']} had no room, run it again later" if done["left"] else ""
        print(f"queued {done['queued']} documents again{rest}")


def _row(job: dict[str, Any]) -> tuple[Any, ...]:
    counts = job["file_counts"]
    started = datetime.fromtimestamp(job["created_at"]).astimezone().strftime("%m-%d %H:%M")
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    return job["id"], job["status"], f"{counts['completed']}/{counts['total']}{failed}", started, job["collection"]


async def _one(place: Place, verb: str, job_id: str, as_json: bool) -> None:
    async with place.client() as client:
        job = await _acted(client, verb, job_id)
    if as_json:
        emit(job)
        return
    counts = ", ".join(f"{count} {state}" for state, count in job["file_counts"].items() if count and state != "total")
    print(f"job {job['id']} in collection {job['collection']!r}: {job['status']} ({counts or 'no documents'})")
    if rest := left([job]):
        print(rest)
    rows = [
        (one["name"], one["status"], one["stage"], "unchanged" if one["unchanged"] else _why(one))
        for one in job["documents"]
    ]
    table(("document", "status", "stage", ""), rows)


async def _acted(client: Client, verb: str, job_id: str) -> dict[str, Any]:
    return await {"job": client.job, "retry": client.retry, "cancel": client.cancel}[verb](job_id)


def _why(document: dict[str, Any]) -> str:
    error = document["error"]
    return f"{error['code']}: {error['message']}" if error else "; ".join(document.get("warnings") or ())
