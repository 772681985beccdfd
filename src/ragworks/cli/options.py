"""The options that commands share, and the client that they lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from ragworks.client import Client

Data = Annotated[str | None, typer.Option("--data", metavar="DIR", help="Data folder [default: ./.ragworks]")]
Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="Server to talk to, instead of the data folder's")
]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="Settings [default: ./ragworks.toml if there]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout")]
InCollection = Annotated[str, typer.Option("--collection", "-c", metavar="NAME", help="Collection")]
# types.Priority, written again: importing that would cost every command the import of numpy.
InOrder = Annotated[
    Literal["low", "normal", "high"], typer.Option("--priority", help="What goes in first when others wait too")
]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1, max=1000, metavar="N", help="How many at most")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command works: its three options, as given."""

    data: str | None
    url: str | None
    config: str | None

    @asynccontextmanager
    async def client(self, *, create: bool = False) -> AsyncIterator[Client]:
        """The running server's client, or that of the folder opened here; ``create`` allows to make the folder."""
        from ragworks.client import connect
        from ragworks.logs import configure

        # Here the services are a means to one answer; what a server would log would only bury it.
        settings = self.settings(log={"level": "error"})
        configure(settings.log)
        async with connect(settings.server.data, self.url, settings, create=create) as client:
            yield client

    def settings(self, **overrides: Any) -> Any:
        """The effective settings; a server setting of None was not given. Raises InvalidSettings."""
        from ragworks.settings import load

        server = {"data": self.data, **overrides.pop("server", {})}
        given = {key: value for key, value in server.items() if value is not None}
        return load(self.config, server=given, **overrides)
