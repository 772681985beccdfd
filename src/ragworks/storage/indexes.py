"""Where the derived indexes of a collection live, and up to which change each was saved.

``<folder>/<name>.<hash>/vectors-<seq>.usearch`` and ``…/words/`` with ``words.seq`` beside it. A stamp is written
after what it vouches for, so after a crash it is too old at worst, and changes are applied again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ragworks.errors import StorageFull
from ragworks.records import IndexRows, chunk_keys
from ragworks.storage.folder import sync_file, sync_folder
from ragworks.storage.vector_index import HnswIndex
from ragworks.storage.word_index import Bm25Index

SAVE_EVERY = 5000  # chunks: re-adding so many takes a few seconds after a crash, writing the file well under one


def folder_name(collection: str) -> str:
    """A folder for any collection name: readable, and unique by its hash."""
    readable = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in collection)[:40]
    return f"{readable}.{hashlib.blake2b(collection.encode(), digest_size=6).hexdigest()}"


class IndexFolder:
    """storage_protocols.IndexHome below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, collection: str, dimension: int) -> DerivedIndexes:
        return DerivedIndexes(self._root / folder_name(collection), dimension)

    def remove(self, collection: str) -> None:
        shutil.rmtree(self._root / folder_name(collection), ignore_errors=True)

    def keep_only(self, collections: Sequence[str]) -> None:
        known = {folder_name(one) for one in collections}
        for folder in self._root.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)


class DerivedIndexes:
    """storage_protocols.Indexes in a folder. What cannot be read is thrown away: the rows have it all."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder = folder
        self._dimension = dimension
        self._unsaved = 0
        try:
            self._open()
        except ValueError:
            self.reset()

    def _open(self) -> None:
        (self._folder / "words").mkdir(parents=True, exist_ok=True)
        self.words = Bm25Index(self._folder / "words")
        saved = max(self._folder.glob("vectors-*.usearch"), key=_seq_of, default=None)
        self.vectors = HnswIndex(self._dimension, saved)
        self.seq = min(_seq_of(saved), self._words_seq()) if saved else 0
        if not self.seq and len(self.words.keys()):
            raise ValueError("words without vectors")
        self.saved_seq = self.seq

    def apply(self, removed: Sequence[tuple[int, int]], added: Sequence[tuple[int, IndexRows]], seq: int) -> None:
        for version, count in removed:
            self.vectors.remove(chunk_keys(version, count))
        for _, rows in added:
            self.vectors.add(rows.keys, rows.vectors)
        self.words.apply(
            [version for version, _ in removed],
            [(v, key, text) for v, rows in added for key, text in zip(rows.keys.tolist(), rows.texts, strict=True)],
        )
        self.seq = seq
        _write(self._folder / "words.seq", str(seq))
        self._unsaved += sum(count for _, count in removed) + sum(len(rows.texts) for _, rows in added)
        if self._unsaved >= SAVE_EVERY:
            self.save()

    def reset(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._open()

    def save(self) -> None:
        """Write the vectors under a name that tells their change; the words are on disk already."""
        temporary = self._folder / "vectors.new"
        self.vectors.save(temporary)
        sync_file(temporary)
        final = self._folder / f"vectors-{self.seq}.usearch"
        os.replace(temporary, final)
        sync_folder(self._folder)
        for old in self._folder.glob("vectors-*.usearch"):
            if old != final:
                old.unlink()
        self._unsaved, self.saved_seq = 0, self.seq

    def close(self, *, save: bool = True) -> None:
        if save and self._unsaved:
            self.save()
        self.words.close()

    def _words_seq(self) -> int:
        try:
            return int((self._folder / "words.seq").read_text())
        except (OSError, ValueError):
            return 0


def _seq_of(file: Path) -> int:
    return int(file.stem.removeprefix("vectors-"))


def _write(file: Path, text: str) -> None:
    temporary = file.with_suffix(".new")
    try:
        temporary.write_text(text)
        os.replace(temporary, file)
    except OSError as error:
        raise StorageFull(f"cannot write {file}: {error}") from error
