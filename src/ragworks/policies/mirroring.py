"""What makes a collection hold what a folder holds: which files go in, and which documents go.

Three cases. Nothing known of a document's file, or its folder cannot be listed: the document stays. The whole folder
cannot be listed: nothing goes. A document whose file is gone while its bytes wait in another file, as after a rename:
it stays until they are in, so that at no moment what is in the folder is not in the collection.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

EVERYTHING = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Names, in order. ``moved`` are those to submit whose bytes the collection holds already: they cost little, and
    go in before what they may have been copied from is replaced. ``kept`` are gone, and wait for their bytes."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    moved: tuple[str, ...]
    gone: tuple[str, ...]
    kept: tuple[str, ...]


def plan(
    files: Mapping[str, str | None],
    documents: Mapping[str, str],
    *,
    unseen: Collection[str] = (),
    refused: Collection[str] = (),
) -> Plan:
    """``files`` and ``documents`` are content hashes by name; None for a file whose bytes are not known now.

    ``unseen`` are paths, files or folders, that could not be looked at, ``EVERYTHING`` for the folder itself;
    ``refused`` are files that need not be submitted again, because their bytes did not go in.
    """
    waiting = {name: one for name, one in files.items() if one is not None and documents.get(name) != one}
    wanted = sorted(waiting.keys() - set(refused))
    held, pending = set(documents.values()), set(waiting.values())
    gone = [name for name in sorted(documents.keys() - files.keys()) if not _below(name, unseen)]
    return Plan(
        new=tuple(name for name in wanted if name not in documents),
        changed=tuple(name for name in wanted if name in documents),
        moved=tuple(name for name in wanted if waiting[name] in held),
        gone=tuple(name for name in gone if documents[name] not in pending),
        kept=tuple(name for name in gone if documents[name] in pending),
    )


def _below(name: str, places: Collection[str]) -> bool:
    return any(place == EVERYTHING or name == place or name.startswith(f"{place}/") for place in places)
