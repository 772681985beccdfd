"""In which order services start: every one after those that it needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter

from ragworks.errors import InvalidSettings


def start_order(needs: Mapping[str, Collection[str]], wants: Mapping[str, Collection[str]]) -> list[str]:
    """Names so that needed and wanted services come first; otherwise in the order given.

    ``wants`` of services that are not there do not matter. Raises InvalidSettings for a needed service that is not
    there, and for a cycle.
    """
    for name, needed in needs.items():
        if missing := [one for one in needed if one not in needs]:
            raise InvalidSettings(f"service {name} needs {', '.join(missing)}, which server.services does not start")
    sorter = TopologicalSorter(
        {name: [*needed, *(one for one in wants.get(name, ()) if one in needs)] for name, needed in needs.items()}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        raise InvalidSettings(f"services need each other in a circle: {' -> '.join(error.args[1])}") from error
    position = {name: at for at, name in enumerate(needs)}
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        order += ready
        sorter.done(*ready)
    return order
