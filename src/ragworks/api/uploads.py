"""Submissions: what a client sent, as uploads, with a hash that tells a repeated request from another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from fastapi import HTTPException, Request

from ragworks.api.bodies import media_type, parse, require_json, validated
from ragworks.api.forms import Part, read_form
from ragworks.api.schemas import MAX_ORIGIN_CHARACTERS, DocumentsRequest
from ragworks.errors import InvalidInput
from ragworks.settings import Settings
from ragworks.text.names import clean_name
from ragworks.types import Priority, Upload

MAX_KEY_CHARACTERS = 255
OPTIONS = ("metadata", "origin", "priority", "webhook_url")  # form fields besides the files, each at most once
PRIORITIES: tuple[Priority, ...] = get_args(Priority)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submission as it came; ``request_hash`` tells a repeated request from another one."""

    uploads: Sequence[Upload]
    request_hash: str
    priority: Priority
    webhook_url: str | None


@asynccontextmanager
async def submission(request: Request, collection: str, settings: Settings) -> AsyncIterator[Submitted]:
    """What a JSON or multipart body submits. Temporary files live until the context is left."""
    if media_type(request) == "multipart/form-data":
        folder = Path(settings.server.data) / "tmp"
        async with read_form(request, folder, settings.document_processor.max_queue_size + len(OPTIONS)) as parts:
            given = _options(parts)
            uploads = _from_parts(parts, given.get("origin"))
            digest = _hash(collection, *_marks(parts))
            yield Submitted(uploads, digest, _priority(given.get("priority", "normal")), given.get("webhook_url"))
    else:
        _require_known(request)
        data = await request.body()
        body = validated(DocumentsRequest, parse(data))
        yield Submitted(_from_json(body), _hash(collection, data), body.priority, body.webhook_url)


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
        Upload(
            one.id,
            one.id,
            one.text.encode(),
            title=one.title,
            metadata=one.metadata,
            media_type="text/plain",
            origin=body.origin,
        )
        for one in body.documents
    ]


def _options(parts: Sequence[Part]) -> dict[str, str]:
    """The fields that are a word each."""
    found: dict[str, str] = {}
    for part in parts:
        if part.name not in ("files", *OPTIONS):
            raise InvalidInput(
                f"unknown form field {part.name!r}; expected 'files' (repeated) and optionally {', '.join(OPTIONS)}"
            )
        if part.name in ("files", "metadata"):
            continue
        if part.name in found or isinstance(part.source, str):
            raise InvalidInput(f"expected the form field {part.name!r} once, as text")
        found[part.name] = _word(part.name, part.source)
    return found


def _word(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"the form field {name!r} must be text in UTF-8") from None
    if name == "origin" and not 1 <= len(text) <= MAX_ORIGIN_CHARACTERS:
        raise InvalidInput(f"origin: expected 1 to {MAX_ORIGIN_CHARACTERS} characters, found {len(text)}")
    return text


def _priority(word: str) -> Priority:
    for one in PRIORITIES:
        if one == word:
            return one
    raise InvalidInput(f"priority: expected one of {', '.join(PRIORITIES)}, found {word[:60]!r}")


def _from_parts(parts: Sequence[Part], origin: str | None) -> list[Upload]:
    metadata = _metadata([part for part in parts if part.name == "metadata"])
    files = [part for part in parts if part.name == "files"]
    if not files:
        raise InvalidInput(
            "expected at least one file in the form field 'files', found none; with curl: -F files=@report.pdf"
        )
    return [_upload(part, metadata, origin) for part in files]


def _upload(part: Part, metadata: dict[str, Any], origin: str | None) -> Upload:
    if part.filename is None:
        raise InvalidInput("a part named 'files' has no file name; send it as a file: with curl, -F files=@report.pdf")
    name = clean_name(part.filename)
    return Upload(name, name, part.source, metadata=metadata, origin=origin)


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
