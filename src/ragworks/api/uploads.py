"""Submissions: what a client sent, as uploads, with a hash that tells a repeated request from another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request

from ragworks.api.bodies import media_type, parse, require_json, validated
from ragworks.api.forms import Part, read_form
from ragworks.api.schemas import DocumentsRequest
from ragworks.errors import InvalidInput
from ragworks.settings import Settings
from ragworks.text.names import clean_name
from ragworks.types import Upload

MAX_KEY_CHARACTERS = 255
FIELDS = ("files", "metadata")
# Parts that are no documents: the metadata.
OTHER_PARTS = 1


@asynccontextmanager
async def submission(
    request: Request, collection: str, settings: Settings
) -> AsyncIterator[tuple[Sequence[Upload], str]]:
    """(uploads, request hash) of a JSON or multipart body. Temporary files live until the context is left."""
    if media_type(request) == "multipart/form-data":
        folder = Path(settings.server.data) / "tmp"
        async with read_form(request, folder, settings.document_processor.max_queue_size + OTHER_PARTS) as parts:
            yield _from_parts(parts), _hash(collection, *_marks(parts))
    else:
        _require_known(request)
        data = await request.body()
        body = validated(DocumentsRequest, parse(data))
        yield _from_json(body), _hash(collection, data)


def idempotency_key(request: Request) -> str | None:
    """The request's ``Idempotency-Key``, if any. Raises InvalidInput when it is empty or too long."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_CHARACTERS:
        raise InvalidInput(f"expected an Idempotency-Key of 1 to {MAX_KEY_CHARACTERS} characters, found {len(key)}")
    return key


def _require_known(request: Request) -> None:
    try:
        require_json(request)
    except HTTPException:
        found = media_type(request)
        raise HTTPException(
            415,
            f"expected documents as application/json or files as multipart/form-data, found {found}; with curl, send "
            "files by -F files=@report.pdf",
        ) from None


def _from_json(body: DocumentsRequest) -> list[Upload]:
    return [
        Upload(one.id, one.id, one.text.encode(), title=one.title, metadata=one.metadata, media_type="text/plain")
        for one in body.documents
    ]


def _from_parts(parts: Sequence[Part]) -> list[Upload]:
    for part in parts:
        if part.name not in FIELDS:
            raise InvalidInput(
                f"unknown form field {part.name!r}; expected 'files' (repeated) and optionally 'metadata'"
            )
    metadata = _metadata([part for part in parts if part.name == "metadata"])
    files = [part for part in parts if part.name == "files"]
    if not files:
        raise InvalidInput(
            "expected at least one file in the form field 'files', found none; with curl: -F files=@report.pdf"
        )
    return [_upload(part, metadata) for part in files]


def _upload(part: Part, metadata: dict[str, Any]) -> Upload:
    if part.filename is None:
        raise InvalidInput("a part named 'files' has no file name; send it as a file: with curl, -F files=@report.pdf")
    name = clean_name(part.filename)
    return Upload(name, name, part.source, metadata=metadata)


def _metadata(parts: Sequence[Part]) -> dict[str, Any]:
    if not parts:
        return {}
    if len(parts) > 1 or isinstance(parts[0].source, str):
        raise InvalidInput("expected the form field 'metadata' once, as a JSON object that applies to all files")
    try:
        value = parse(parts[0].source)
    except HTTPException as error:
        raise InvalidInput(f"the form field 'metadata' must be a JSON object: {error.detail}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"the form field 'metadata' must be a JSON object, found {json.dumps(value)[:60]}")
    return value


def _marks(parts: Sequence[Part]) -> list[bytes]:
    marks = []
    for part in parts:
        content = part.digest.digest() if part.filename is not None else bytes(part.source)  # type: ignore[arg-type]
        marks += [part.name.encode(), (part.filename or "").encode(), content]
    return marks


def _hash(collection: str, *pieces: bytes) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for piece in (collection.encode(), *pieces):
        # The length before each piece keeps ("ab", "c") apart from ("a", "bc").
        digest.update(len(piece).to_bytes(8, "big") + piece)
    return digest.hexdigest()
