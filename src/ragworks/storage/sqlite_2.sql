-- Step 2. What the queue knows of an attempt, of a job's caller and of a document's origin; texts in parts.

ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN estimated_s REAL;
ALTER TABLE tasks ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN leased_until REAL NOT NULL DEFAULT 0;
-- What a completed document cost, from which the next ones are estimated.
ALTER TABLE tasks ADD COLUMN kind TEXT;
ALTER TABLE tasks ADD COLUMN chunk_count INTEGER;
ALTER TABLE tasks ADD COLUMN read_s REAL;
ALTER TABLE tasks ADD COLUMN embed_s REAL;
-- What claiming, bounding and estimating read, without touching the rows themselves.
DROP INDEX tasks_open;
CREATE INDEX tasks_open ON tasks (job_id, state, seq, due_at, leased_until, collection, priority, kind, size_bytes)
    WHERE state IN ('queued', 'in_progress');
CREATE INDEX tasks_failed ON tasks (seq) WHERE state = 'failed';

-- Due not before webhook_due_at, and not before every task of the job has ended; neither delivered nor given up.
ALTER TABLE jobs ADD COLUMN webhook_url TEXT;
ALTER TABLE jobs ADD COLUMN webhook_id TEXT;
ALTER TABLE jobs ADD COLUMN webhook_due_at REAL;
ALTER TABLE jobs ADD COLUMN webhook_attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN webhook_delivered_at REAL;
ALTER TABLE jobs ADD COLUMN webhook_error TEXT;
CREATE INDEX jobs_webhook ON jobs (webhook_due_at) WHERE webhook_due_at IS NOT NULL;

-- The parsed text of a version, in stretches: code points from start, UTF-8, zlib. It replaces versions.text.
CREATE TABLE texts (
    version INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    length  INTEGER NOT NULL,
    text    BLOB NOT NULL
);
CREATE UNIQUE INDEX texts_version ON texts (version, start);
-- Where parsed_title came from: submission, document or name. Of older versions nobody knows.
ALTER TABLE versions ADD COLUMN title_from TEXT NOT NULL DEFAULT 'submission';

ALTER TABLE tasks ADD COLUMN origin TEXT;
ALTER TABLE documents ADD COLUMN origin TEXT;
