-- The one truth: what is accepted, what is indexed, what is visible. Indexes for search are derived from it.

CREATE TABLE collections (
    name        TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL DEFAULT '',
    dimension   INTEGER NOT NULL DEFAULT 0,
    created_at  REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE jobs (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    collection      TEXT NOT NULL,
    created_at      REAL NOT NULL,
    idempotency_key TEXT UNIQUE,
    request_hash    TEXT NOT NULL DEFAULT '',
    cancelled       INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE tasks (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL UNIQUE,
    job_id        TEXT NOT NULL,
    collection    TEXT NOT NULL,
    document_id   TEXT NOT NULL,
    name          TEXT NOT NULL,
    content_hash  TEXT NOT NULL,
    size_bytes    INTEGER NOT NULL,
    title         TEXT,
    metadata      TEXT NOT NULL,
    media_type    TEXT,
    state         TEXT NOT NULL,
    stage         TEXT,
    lease         TEXT NOT NULL DEFAULT '',
    attempts      INTEGER NOT NULL DEFAULT 0,
    due_at        REAL NOT NULL DEFAULT 0,
    error_code    TEXT,
    error_message TEXT,
    unchanged     INTEGER NOT NULL DEFAULT 0,
    warnings      TEXT NOT NULL DEFAULT '[]',
    finished_at   REAL
);
CREATE INDEX tasks_open ON tasks (collection, seq) WHERE state IN ('queued', 'in_progress');
CREATE INDEX tasks_job ON tasks (job_id, seq);
CREATE INDEX tasks_document ON tasks (collection, document_id, seq);
CREATE INDEX tasks_content ON tasks (content_hash) WHERE state IN ('queued', 'in_progress', 'failed');

-- One parsed form of one document. It is visible when documents.version names it, staged while its task's lease is.
CREATE TABLE versions (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    collection   TEXT NOT NULL,
    document_id  TEXT NOT NULL,
    task_id      TEXT NOT NULL,
    lease        TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    size_bytes   INTEGER NOT NULL,
    media_type   TEXT NOT NULL,
    parsed_title TEXT NOT NULL,
    pages        INTEGER,
    properties   TEXT NOT NULL,
    warnings     TEXT NOT NULL,
    chunk_count  INTEGER NOT NULL,
    text         BLOB NOT NULL                -- UTF-8, zlib
);
CREATE INDEX versions_content ON versions (content_hash);
CREATE INDEX versions_document ON versions (collection, document_id);

CREATE TABLE documents (
    collection TEXT NOT NULL,
    id         TEXT NOT NULL,
    version    INTEGER NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    title      TEXT NOT NULL,
    metadata   TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (collection, id)
) WITHOUT ROWID;

-- id = version * 2^24 + ordinal, so that a version's chunks are one range, and an index can forget them without rows.
CREATE TABLE chunks (
    id            INTEGER PRIMARY KEY,
    embedding_key BLOB NOT NULL,
    start         INTEGER NOT NULL,
    end           INTEGER NOT NULL,
    page          INTEGER,
    headings      TEXT NOT NULL,
    text          TEXT NOT NULL,
    words         TEXT NOT NULL,              -- what the word index reads before the text: title, headings
    vector        BLOB NOT NULL               -- float16
);
CREATE INDEX chunks_key ON chunks (embedding_key);

-- What the derived indexes follow, in order.
CREATE TABLE changes (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    collection  TEXT NOT NULL,
    version     INTEGER NOT NULL,
    added       INTEGER NOT NULL,
    chunk_count INTEGER NOT NULL
);
CREATE INDEX changes_collection ON changes (collection, seq);
