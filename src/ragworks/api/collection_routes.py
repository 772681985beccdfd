"""Routes of collections and of the documents in them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from ragworks.api import schemas
from ragworks.api.bodies import accepts, body
from ragworks.api.context import After, Limit, app_of, needs, problems
from ragworks.api.uploads import idempotency_key, submission

router = APIRouter(tags=["collections"], dependencies=[needs("vector_store")])
documents = APIRouter(tags=["documents"], dependencies=[needs("vector_store")])
ingestion = APIRouter(tags=["documents"], dependencies=[needs("document_processor")])

Origin = Annotated[str | None, Query(description="only those that were taken from this folder")]

SUBMISSION_BODY = accepts(schemas.DocumentsRequest)
SUBMISSION_BODY["requestBody"]["content"]["multipart/form-data"] = {
    "schema": {
        "type": "object",
        "required": ["files"],
        "properties": {
            "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "metadata": {"type": "string", "description": "a JSON object that applies to all files"},
            "origin": {"type": "string", "description": "the folder that the files were taken from"},
            "priority": {"type": "string", "enum": ["low", "normal", "high"], "default": "normal"},
            "webhook_url": {"type": "string", "description": "told, signed, when every document has ended"},
        },
    }
}


@router.post(
    "/v1/collections",
    status_code=201,
    responses=problems(400, 409, 415, 422),
    openapi_extra=accepts(schemas.CollectionRequest),
)
async def create_collection(
    request: Request,
    response: Response,
    wanted: Annotated[schemas.CollectionRequest, Depends(body(schemas.CollectionRequest))],
) -> schemas.Collection:
    """Create an empty collection."""
    made = await app_of(request).vector_store.create_collection(wanted.name)
    response.headers["Location"] = f"/v1/collections/{made.name}"
    return schemas.Collection.model_validate(made)


@router.get("/v1/collections", responses=problems(422))
async def list_collections(
    request: Request, limit: Limit = 20, after: After = None
) -> schemas.ListOf[schemas.Collection]:
    """List collections."""
    return schemas.page(schemas.Collection.model_validate, await app_of(request).vector_store.collections(limit, after))


@router.get("/v1/collections/{name}", responses=problems(404))
async def get_collection(request: Request, name: str) -> schemas.Collection:
    """One collection."""
    return schemas.Collection.model_validate(await app_of(request).vector_store.collection(name))


@router.delete("/v1/collections/{name}", status_code=204, responses=problems(404))
async def delete_collection(request: Request, name: str) -> None:
    """Delete a collection with everything in it."""
    await app_of(request).vector_store.drop_collection(name)


@ingestion.post(
    "/v1/collections/{name}/documents",
    status_code=202,
    responses=problems(400, 404, 409, 413, 415, 422, 429, 507),
    openapi_extra=SUBMISSION_BODY,
)
async def submit_documents(
    request: Request,
    response: Response,
    name: str,
    key: Annotated[
        str | None, Header(alias="Idempotency-Key", description="makes a repeated submission harmless")
    ] = None,
) -> schemas.Submission:
    """Accept files (multipart) or texts (JSON); when this answers, they are on disk."""
    app = app_of(request)
    key = idempotency_key(request)
    async with submission(request, name, app.settings) as given:
        receipt = await app.document_processor.process_documents(
            name,
            given.uploads,
            idempotency_key=key,
            request_hash=given.request_hash,
            wait=False,
            priority=given.priority,
            webhook_url=given.webhook_url,
        )
    response.headers["Location"] = f"/v1/jobs/{receipt.processing_job_id}"
    return schemas.Submission.model_validate(receipt)


@documents.get("/v1/collections/{name}/documents", responses=problems(404, 422))
async def list_documents(
    request: Request, name: str, limit: Limit = 20, after: After = None, origin: Origin = None
) -> schemas.ListOf[schemas.Document]:
    """List the documents that answer now."""
    found = await app_of(request).vector_store.documents(name, limit, after, origin)
    return schemas.page(schemas.Document.model_validate, found)


# Ids may hold slashes, so this route must be asked before the one that takes any rest of the path.
@documents.get("/v1/collections/{name}/documents/{document_id:path}/text", responses=problems(404))
async def get_document_text(request: Request, name: str, document_id: str) -> schemas.DocumentText:
    """The parsed text that ``start`` and ``end`` of hits and citations point into."""
    return schemas.DocumentText(text=await app_of(request).vector_store.text(name, document_id))


@documents.get("/v1/collections/{name}/documents/{document_id:path}", responses=problems(404))
async def get_document(request: Request, name: str, document_id: str) -> schemas.Document:
    """One document."""
    return schemas.Document.model_validate(await app_of(request).vector_store.document(name, document_id))


@documents.delete("/v1/collections/{name}/documents/{document_id:path}", status_code=204, responses=problems(404))
async def delete_document(request: Request, name: str, document_id: str) -> None:
    """Delete a document: its bytes, chunks, vectors and words."""
    await app_of(request).vector_store.delete_document(name, document_id)
