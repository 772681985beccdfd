"""What is read from the machine itself."""

from __future__ import annotations

from pathlib import Path

from ragworks.control.machine import Machine


def test_disk_and_memory_are_read(tmp_path: Path) -> None:
    seen = Machine(tmp_path).look()
    assert 0 <= (seen.disk_free_bytes or -1) < (seen.disk_total_bytes or 0)
    assert 0 < (seen.own_memory_bytes or 0) < (seen.memory_total_bytes or 0)
    assert 0 < (seen.memory_available_bytes or 0) < (seen.memory_total_bytes or 0)


def test_a_folder_that_is_not_there_leaves_the_disk_unknown(tmp_path: Path) -> None:
    seen = Machine(tmp_path / "gone").look()
    assert seen.disk_free_bytes is None
    assert seen.memory_total_bytes
