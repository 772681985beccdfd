"""Opening a data folder: one at a time, and a clear word where it cannot be one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ragworks.errors import CannotStart, DataFolderLocked
from ragworks.storage.folder import DataFolder


def test_a_second_opener_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    first, second = DataFolder(str(tmp_path / "data")), DataFolder(str(tmp_path / "data"))
    first.open()
    with pytest.raises(DataFolderLocked, match=rf"in use by process {os.getpid()}"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_a_file_is_no_data_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CannotStart, match="not a folder"):
            DataFolder(str(path)).open()


def test_uploads_that_a_crash_left_are_removed(tmp_path: Path) -> None:
    folder = DataFolder(str(tmp_path))
    folder.uploads.mkdir()
    (folder.uploads / "half").write_text("x")
    folder.open()
    assert list(folder.uploads.iterdir()) == []
    folder.close()
