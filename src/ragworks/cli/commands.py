"""The table of contents of the command line: every command, in the order that help shows them."""

from __future__ import annotations

from typing import Annotated

import typer

from ragworks.cli import (
    advising,
    asking,
    benching,
    caching,
    checking,
    collections,
    configuring,
    evaluating,
    explaining,
    ingesting,
    jobs,
    planning,
    reporting,
    scaling,
    serving,
    simulating,
)

application = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turns documents into a question-answering service with citations.",
    epilog="Start with: ragworks serve ./docs, then: ragworks ask 'a question'. Every command has --help.",
)


@application.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    """Options of every command; ``main`` takes --debug out wherever it stands."""
    if version:
        from importlib.metadata import version as installed

        print(f"ragworks {installed('ragworks')}")
        raise typer.Exit


application.command()(serving.serve)
application.command()(ingesting.ingest)
application.command()(asking.search)
application.command()(asking.ask)
application.add_typer(jobs.commands, name="jobs")
application.command()(reporting.status)
application.command()(scaling.scale)
application.command()(explaining.why)
application.command()(advising.insights)
application.command()(checking.doctor)
application.add_typer(collections.collection_commands, name="collections")
application.add_typer(collections.document_commands, name="documents")
application.command(name="eval")(evaluating.evaluate)
application.add_typer(benching.commands, name="bench")
application.add_typer(simulating.commands, name="simulate")
application.command()(planning.plan)
application.add_typer(caching.commands, name="cache")
application.add_typer(configuring.commands, name="config")
