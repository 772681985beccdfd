from __future__ import annotations

import struct
import tracemalloc
import zipfile

import pytest

from documents import zipped
from ragworks.errors import CorruptDocument, DocumentTooLarge, EncryptedDocument
from ragworks.text import archive
from ragworks.text.archive import listed, opened, unpacked

BOMB = bytes(64 * 1024**2)


def test_a_sound_archive_is_opened_and_its_entries_come_in_pieces() -> None:
    made = opened(zipped({"a": b"x" * 600_000, "b": b""}))
    pieces = list(unpacked(made, "a"))
    assert b"".join(pieces) == b"x" * 600_000
    assert len(pieces) > 1


def test_an_entry_that_unpacks_to_far_more_than_its_size_is_refused_before_it_fills_the_memory() -> None:
    data = zipped({"bomb.xml": BOMB})
    tracemalloc.start()
    with pytest.raises(DocumentTooLarge, match="250 times its size"):
        opened(data)
    assert tracemalloc.get_traced_memory()[1] < 4 * 1024**2
    tracemalloc.stop()


def test_a_small_entry_may_be_as_repetitive_as_it_likes() -> None:
    assert opened(zipped({"a": bytes(1024**2)})).namelist() == ["a"]


def test_a_size_is_counted_and_not_believed() -> None:
    """The directory says one byte; zipfile would read one byte, the parsing libraries all of them."""
    data = zipped({"bomb.xml": BOMB}).replace(struct.pack("<I", len(BOMB)), struct.pack("<I", 1))
    assert [entry.file_size for entry in listed(data).infolist()] == [1]
    with pytest.raises(DocumentTooLarge):
        opened(data)


def test_many_entries_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1000)
    opened(zipped({"a": b"x" * 500, "b": b"x" * 500}))
    with pytest.raises(DocumentTooLarge, match="more than 1000 bytes"):
        opened(zipped({"a": b"x" * 500, "b": b"x" * 501}))


def test_a_directory_of_too_many_entries_is_refused_before_it_is_read() -> None:
    with pytest.raises(DocumentTooLarge, match="more than 10000 entries"):
        listed(b"PK\x03\x04" + b"PK\x01\x02" * 10_001)


def test_an_archive_inside_an_archive_is_not_followed() -> None:
    assert opened(zipped({"inner.zip": zipped({"bomb": BOMB})})).namelist() == ["inner.zip"]


def test_an_entry_that_needs_a_password_says_so() -> None:
    data = bytearray(zipped({"a": b"x"}))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + at] |= 1
    with pytest.raises(EncryptedDocument, match="password"):
        opened(bytes(data))


def test_a_damaged_entry_is_named() -> None:
    data = zipped({"word/document.xml": b"some text of a document"}, zipfile.ZIP_STORED)
    with pytest.raises(CorruptDocument, match=r"'word/document.xml' .* is broken"):
        opened(data.replace(b"some text", b"lost text"))


def test_a_method_of_packing_that_office_programs_do_not_use_is_refused() -> None:
    """Unpacking LZMA and bzip2 is not bounded piece by piece."""
    with pytest.raises(CorruptDocument, match="packed in a way"):
        opened(zipped({"a": b"x" * 100}, zipfile.ZIP_BZIP2))


def test_the_end_of_an_archive_that_is_missing_is_told() -> None:
    data = zipped({"a": b"x" * 1000})
    with pytest.raises(CorruptDocument, match="broken"):
        opened(data[: len(data) // 2])


def test_names_that_lead_elsewhere_are_names_and_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"an archive was unpacked to disk: {arguments}")

    for method in ("extract", "extractall", "_extract_member"):
        monkeypatch.setattr(zipfile.ZipFile, method, refuse)
    made = opened(zipped({"../../evil": b"x", "/etc/evil": b"y"}))
    assert [b"".join(unpacked(made, name)) for name in made.namelist()] == [b"x", b"y"]
