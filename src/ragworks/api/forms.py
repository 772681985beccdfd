"""Multipart bodies, spooled as they arrive: memory stays bounded, and the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ragworks.api.problems import bad_request
from ragworks.errors import InvalidInput, StorageFull, SubmissionTooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FLUSH_BYTES = 1024**2  # received bytes that wait in memory for the disk
SMALL_FILE_BYTES = 64 * 1024  # notes stay in memory: a temporary file for each would cost more than the note
SMALL_FILES_BYTES = 8 * 1024**2  # ... until a submission holds this much of them
FIELD_BYTES = 1024**2  # a form field that is not a file


@dataclass(slots=True, eq=False)
class Part:
    """One part of a form; a file if it has a ``filename``. ``source`` is its bytes, or the path of a file with them."""

    name: str
    filename: str | None
    source: bytes | str = b""
    size_bytes: int = 0
    digest: hashlib.blake2b = field(default_factory=lambda: hashlib.blake2b(digest_size=32))
    pending: bytearray = field(default_factory=bytearray)
    complete: bool = False


@asynccontextmanager
async def read_form(request: Request, folder: Path, max_files: int) -> AsyncIterator[list[Part]]:
    """The parts of a multipart request, in order; their temporary files live until the context is left.

    Raises 400 for a broken form, SubmissionTooLarge past ``max_files``, StorageFull when the disk cannot take it.
    """
    receiver = _Receiver(folder, max_files)
    try:
        yield await _read(request, receiver)
    finally:
        await asyncio.to_thread(receiver.remove)


async def _read(request: Request, receiver: _Receiver) -> list[Part]:
    boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary")
    if not boundary:
        raise bad_request("the multipart body has no boundary; let your HTTP client set the Content-Type header")
    try:
        parser = MultipartParser(boundary, receiver.callbacks())
        async for data in request.stream():
            parser.write(data)
            if receiver.waiting >= FLUSH_BYTES:
                await _flushed(receiver)
    except FormParserError as error:
        raise bad_request(f"the multipart body is broken: {error}") from None
    if not receiver.ended:
        raise bad_request("the multipart body ends before its last boundary; it was cut on the way: send it again")
    await _flushed(receiver)
    return receiver.parts


async def _flushed(receiver: _Receiver) -> None:
    try:
        await asyncio.to_thread(receiver.flush)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise StorageFull(
                f"the upload does not fit on the data folder's disk ({error.strerror}); nothing was accepted"
            ) from error
        raise


class _Receiver:
    """Takes the parser's callbacks in the event loop, and writes what they brought in a thread."""

    def __init__(self, folder: Path, max_files: int) -> None:
        self.parts: list[Part] = []
        self.waiting = 0
        self.ended = False
        self._folder = folder
        self._max_files = max_files
        self._in_memory = 0
        self._unwritten: list[Part] = []
        self._headers: dict[str, str] = {}
        self._name = self._value = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._part_begins,
            "on_part_data": self._part_data,
            "on_part_end": self._part_ends,
            "on_end": self._form_ends,
        }

    def flush(self) -> None:
        """Write what waits. Runs in a thread, while the parser rests."""
        for part in self._unwritten:
            if part.filename is not None:
                self._write(part)
            elif part.complete:
                part.source, part.pending = bytes(part.pending), bytearray()
        self._unwritten = [part for part in self._unwritten if not part.complete]
        self.waiting = 0

    def remove(self) -> None:
        """Delete the temporary files; those of a killed process go when the data folder is opened again."""
        for part in self.parts:
            if isinstance(part.source, str):
                Path(part.source).unlink(missing_ok=True)

    def _write(self, part: Part) -> None:
        part.digest.update(part.pending)
        if part.complete and part.size_bytes <= SMALL_FILE_BYTES and self._fits(part):
            part.source = bytes(part.pending)
        else:
            if isinstance(part.source, bytes):
                self._folder.mkdir(parents=True, exist_ok=True)
                part.source = str(self._folder / f"upload-{uuid.uuid4().hex}")
            with open(part.source, "ab") as file:
                file.write(part.pending)
        part.pending = bytearray()

    def _fits(self, part: Part) -> bool:
        if isinstance(part.source, str) or self._in_memory + part.size_bytes > SMALL_FILES_BYTES:
            return False
        self._in_memory += part.size_bytes
        return True

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name = self._value = b""

    def _part_begins(self) -> None:
        options = parse_options_header(self._headers.get("content-disposition"))[1]
        self._headers = {}
        if b"name" not in options:
            raise bad_request("a part of the multipart body has no name; expected files in parts named 'files'")
        filename = options.get(b"filename")
        part = Part(_text(options[b"name"]), None if filename is None else _text(filename))
        if len(self.parts) >= self._max_files:
            raise SubmissionTooLarge(
                f"expected at most {self._max_files} files in one submission, found more; send fewer at a time"
            )
        self.parts.append(part)
        self._unwritten.append(part)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        part.pending += data[start:end]
        part.size_bytes += end - start
        self.waiting += end - start
        if part.filename is None and part.size_bytes > FIELD_BYTES:
            raise InvalidInput(
                f"the form field {part.name!r} is longer than {FIELD_BYTES} bytes; send a file with its file name"
            )

    def _part_ends(self) -> None:
        self.parts[-1].complete = True

    def _form_ends(self) -> None:
        self.ended = True


def _text(value: bytes) -> str:
    """A name in a part's header: UTF-8 by the standard, latin-1 from old clients, quotes escaped as browsers do."""
    try:
        return value.decode("utf-8").replace("%22", '"')
    except UnicodeDecodeError:
        return value.decode("latin-1")
