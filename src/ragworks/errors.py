"""Every error that ragworks raises on purpose.

RagworksError
├── InvalidInput                 the caller can mend it
│   ├── InvalidSettings          a key or value of the configuration
│   └── UnusableFilter           a metadata filter
├── NotFound
│   ├── CollectionNotFound
│   ├── DocumentNotFound
│   ├── JobNotFound
│   ├── ServiceNotFound
│   ├── QuestionNotFound
│   └── DeadLetterNotFound
├── Conflict
│   ├── CollectionExists
│   ├── ModelMismatch            the collection was embedded with another model
│   ├── IdempotencyKeyReused     same key, another body
│   └── IdempotencyKeyInUse      same key, and the first request still runs
├── Refused                      nothing was accepted
│   ├── QueueFull                try again after retry_after_s
│   ├── TooManyQuestions         try again after retry_after_s
│   ├── SubmissionTooLarge       could never fit
│   ├── NotReady                 a service is still starting, or down
│   ├── ReplicaLost              a replica ended before it answered
│   │   └── ReplicaGone          it had ended before it was asked
│   └── EndpointUnavailable      no endpoint of a remote model can be asked now
├── GenerationFailed             the model server refuses the question for what it is
├── StorageFull                  disk full or read-only; nothing was changed
├── CannotStart                  this process cannot serve
│   ├── DataFolderLocked
│   ├── DataFolderNewer
│   ├── DataFolderDamaged
│   ├── PortInUse
│   └── ModelMissing
├── DocumentError                one document failed, the others go on
│   ├── SourceUnreadable, UnsupportedFormat, EmptyDocument, EncryptedDocument, CorruptDocument, NoTextLayer,
│   │   DocumentTooLarge, ReadTimeout, ReadMemoryExceeded
│   └── WorkerCrashed, EmbeddingFailed, VersionIncomplete, Stalled        (may pass on a retry)
├── LeaseLost                    the attempt no longer owns its task
└── ClientError                  what a client of a server sees; no server sends it
    ├── ServerProblem            the server refused or failed: its code, status and detail
    └── ServerUnreachable        nobody answers there, or the answer broke off

``code`` is stable and goes over the wire; ``transient`` says whether the same call may succeed later.
"""

from __future__ import annotations

from collections.abc import Iterable


class RagworksError(Exception):
    """Any error of ragworks; the message says what was expected, what came, and what to do."""

    code = "internal_error"
    transient = False


class InvalidInput(RagworksError):
    code = "invalid_input"


class InvalidSettings(InvalidInput):
    code = "invalid_settings"


class UnusableFilter(InvalidInput):
    code = "invalid_filter"


class NotFound(RagworksError):
    code = "not_found"


class CollectionNotFound(NotFound):
    code = "collection_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no collection {name!r}; create it with POST /v1/collections")
        self.name = name


class DocumentNotFound(NotFound):
    code = "document_not_found"

    def __init__(self, collection: str, document_id: str) -> None:
        super().__init__(f"collection {collection!r} has no document {document_id!r}")
        self.document_id = document_id


class JobNotFound(NotFound):
    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r}; `ragworks jobs` lists them")
        self.job_id = job_id


class ServiceNotFound(NotFound):
    code = "service_not_found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"there is no service {name!r} in this server; it runs {', '.join(known)}")
        self.name = name


class QuestionNotFound(NotFound):
    code = "question_not_found"

    def __init__(self, collection: str, question_id: str, mode: str) -> None:
        why = "query_log.mode is off, so none is kept" if mode == "off" else "it may be older than query_log.keep_s"
        super().__init__(
            f"no question {question_id!r} of collection {collection!r} is known: expected the id that an answer of "
            f"search or ask carried; {why}"
        )
        self.question_id = question_id


class DeadLetterNotFound(NotFound):
    code = "dead_letter_not_found"

    def __init__(self, task_id: str) -> None:
        super().__init__(
            f"no dead letter {task_id!r} can be queued again: expected the task_id of one whose bytes are there and "
            "that was not submitted again since; GET /v1/dead-letters lists them"
        )
        self.task_id = task_id


class Conflict(RagworksError):
    code = "conflict"


class CollectionExists(Conflict):
    code = "collection_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"collection {name!r} exists already")
        self.name = name


class ModelMismatch(Conflict):
    code = "model_mismatch"

    def __init__(self, collection: str, has: str, configured: str) -> None:
        super().__init__(
            f"collection {collection!r} holds vectors of model {has}, but the server runs {configured}: vectors of two "
            "models cannot be compared; set the model of embeddings_service back, or ingest into a new collection"
        )


class IdempotencyKeyReused(RagworksError):
    code = "idempotency_key_reused"


class IdempotencyKeyInUse(Conflict):
    code = "idempotency_key_in_use"


class Refused(RagworksError):
    code = "refused"


class QueueFull(Refused):
    """The queue has no room now. ``retry_after_s`` is when, at the measured drain rate, it will have."""

    code = "queue_full"
    transient = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyQuestions(Refused):
    """As many questions as may be are being answered. ``retry_after_s`` is when this one's turn should come."""

    code = "too_many_questions"
    transient = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SubmissionTooLarge(Refused):
    code = "submission_too_large"


class NotReady(Refused):
    code = "not_ready"
    transient = True

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ReplicaLost(Refused):
    """The replica ended before it answered; whether the call took effect there is not known."""

    code = "replica_lost"
    transient = True
    retry_after_s = 1.0


class ReplicaGone(ReplicaLost):
    """The replica had ended before it was asked: nothing was done with the call."""

    code = "replica_gone"


class EndpointUnavailable(Refused):
    """No endpoint answered; there is no use in asking before ``retry_after_s`` are over.

    ``asked``: an endpoint named that time itself, or all are left out, so that nothing was sent. ``suspect``: each that
    was asked failed inside (500), which may be the doing of one of the texts.
    """

    code = "endpoint_unavailable"
    transient = True

    def __init__(self, message: str, retry_after_s: float, *, asked: bool = False, suspect: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.asked, self.suspect = asked, suspect


class GenerationFailed(RagworksError):
    code = "generation_failed"


class StorageFull(RagworksError):
    code = "storage_full"
    transient = True


class CannotStart(RagworksError):
    code = "cannot_start"


class DataFolderLocked(CannotStart):
    code = "data_folder_locked"


class DataFolderNewer(CannotStart):
    code = "data_folder_newer"


class DataFolderDamaged(CannotStart):
    code = "data_folder_damaged"


class PortInUse(CannotStart):
    code = "port_in_use"


class ModelMissing(CannotStart):
    code = "model_missing"


class DocumentError(RagworksError):
    """One document cannot be indexed; the job names it with this code and message."""

    code = "document_failed"


class SourceUnreadable(DocumentError):
    """The file to read the document from is not there, or may not be read."""

    code = "source_unreadable"


class UnsupportedFormat(DocumentError):
    code = "unsupported_format"


class EmptyDocument(DocumentError):
    code = "empty_document"


class EncryptedDocument(DocumentError):
    code = "encrypted_document"


class CorruptDocument(DocumentError):
    code = "corrupt_document"


class NoTextLayer(DocumentError):
    code = "no_text_layer"


class DocumentTooLarge(DocumentError):
    code = "document_too_large"


class ReadTimeout(DocumentError):
    """Reading took longer than it may; ``transient`` if it had hardly any of a core: the document may be well."""

    code = "read_timeout"

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class ReadMemoryExceeded(DocumentError):
    code = "read_memory_exceeded"


class WorkerCrashed(DocumentError):
    code = "worker_crashed"
    transient = True


class EmbeddingFailed(DocumentError):
    code = "embedding_failed"

    def __init__(self, message: str, *, transient: bool = False, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.transient = transient
        if transient:
            self.retry_after_s = retry_after_s


class VersionIncomplete(DocumentError):
    """Not every chunk of a version was staged; it is never shown."""

    code = "version_incomplete"
    transient = True


class Stalled(DocumentError):
    """The attempt had its turn and gave no sign of progress; it was ended."""

    code = "stalled"
    transient = True


class LeaseLost(RagworksError):
    """The task was cancelled or handed to another attempt; what this attempt staged is discarded."""

    code = "lease_lost"


class ClientError(RagworksError):
    code = "client_error"


class ServerProblem(ClientError):
    """What a server answered instead of success. ``code`` is the server's; ``retry_after_s`` if it named a time."""

    code = "server_problem"

    def __init__(self, code: str, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s
        self.transient = status in (429, 503)


class ServerUnreachable(ClientError):
    code = "server_unreachable"
    transient = True
