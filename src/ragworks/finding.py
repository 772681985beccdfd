"""Which files a path means, what each will be called, and what is left out and why."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragworks.errors import InvalidInput

# What editors, browsers and office programs write beside a file, or before it is whole.
_TEMPORARY = re.compile(r"^\.|^~\$|~$|\.(?:swp|part|crdownload|tmp)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """A file to ingest: ``name`` becomes the document's id. ``origin`` is the folder that it was found in, if any."""

    name: str
    path: Path
    size_bytes: int
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that was left out. Hidden and temporary files are left out without a word.

    ``unseen``: it could not be looked at, so that nothing is known of what is there.
    """

    path: str
    reason: str
    unseen: bool = False


def passing(name: str) -> bool:
    """Whether a name is that of a hidden or temporary file or folder."""
    return _TEMPORARY.search(name) is not None


def origin_of(folder: Path) -> str:
    """What documents from ``folder`` are marked with: its absolute path, as text that can be sent.

    Links stay as they are, so that a folder behind a link that is turned, as deployments do, stays the same folder.
    """
    return os.fsencode(os.path.abspath(folder)).decode("utf-8", "replace")


def look(folder: Path, data_folder: Path) -> tuple[list[Source], list[Skipped]]:
    """Every file of one folder and all below it; of two that would be one document the later is skipped."""
    sources: dict[str, Source] = {}
    skipped: list[Skipped] = []
    for found in _below(folder, data_folder.resolve()):
        if isinstance(found, Skipped):
            skipped.append(found)
        elif (first := sources.setdefault(found.name, found)) is not found:
            skipped.append(Skipped(str(found.path), f"would be the same document as {first.path}; rename one of them"))
    return list(sources.values()), skipped


def find(paths: Sequence[Path], data_folder: Path) -> tuple[list[Source], list[Skipped]]:
    """Every file of ``paths``, folders with all below them, in order of name; and what was skipped.

    A file in a folder is called by its path below that folder, a file given by itself by its last name. Raises
    InvalidInput if files of two paths would be the same document.
    """
    sources: list[Source] = []
    skipped: list[Skipped] = []
    for path in paths:
        if path.is_dir():
            found, left_out = look(path, data_folder)
            sources += found
            skipped += left_out
        elif isinstance(one := _examined(path, path.name, None), Source):
            sources.append(one)
        else:
            skipped.append(one)
    return _distinct(sources), skipped


def _below(folder: Path, data_folder: Path) -> Iterator[Source | Skipped]:
    unreadable: list[OSError] = []
    root, origin = folder.resolve(), origin_of(folder)
    for place, folders, files in os.walk(folder, onerror=unreadable.append):
        here = Path(place)
        linked = [name for name in folders if (here / name).is_symlink() and not passing(name)]
        folders[:] = sorted(name for name in folders if not passing(name) and (here / name).resolve() != data_folder)
        for name in sorted(linked):
            yield Skipped(str(here / name), "a link to a folder; links to folders are not followed")
        for name in sorted(files):
            if not passing(name):
                yield _examined(here / name, (here / name).relative_to(folder).as_posix(), root, origin)
    for error in unreadable:
        yield Skipped(str(error.filename), error.strerror or str(error), unseen=True)


def _examined(path: Path, name: str, root: Path | None, origin: str | None = None) -> Source | Skipped:
    """``root``, if given, is the folder that a link must stay in, and ``origin`` what it is called."""
    from ragworks.text.names import clean_name

    try:
        if root is not None and path.is_symlink() and not path.resolve(strict=True).is_relative_to(root):
            return Skipped(str(path), f"a link out of the folder, to {path.resolve()}")
        found = path.stat()
    except OSError as error:
        return Skipped(str(path), error.strerror or str(error), unseen=True)
    except RuntimeError:
        return Skipped(str(path), "a link that leads back to itself")
    if not stat.S_ISREG(found.st_mode):
        return Skipped(str(path), "not a regular file")
    try:
        return Source(clean_name(name), path, found.st_size, origin)
    except InvalidInput as error:
        return Skipped(str(path), str(error))


def _distinct(sources: list[Source]) -> list[Source]:
    seen: dict[str, Source] = {}
    for source in sources:
        other = seen.setdefault(source.name, source)
        if other is not source and other.path.resolve() != source.path.resolve():
            raise InvalidInput(
                f"{other.path} and {source.path} would both be the document {source.name!r}; ingest the folder that "
                "holds both, or give each a --collection of its own"
            )
    return list(seen.values())
