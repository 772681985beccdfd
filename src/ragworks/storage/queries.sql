CREATE TABLE queries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE, -- what an answer carries, and feedback names
    at REAL NOT NULL,
    request TEXT NOT NULL,
    collection TEXT NOT NULL,
    kind TEXT NOT NULL,
    mode TEXT NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT NOT NULL,
    seconds TEXT NOT NULL,
    hits INTEGER NOT NULL,
    best_score REAL,
    support REAL,
    documents TEXT NOT NULL,
    cited TEXT NOT NULL,
    cached INTEGER,
    generator TEXT NOT NULL,
    tokens INTEGER,
    text TEXT,
    rating TEXT,
    comment TEXT
);
CREATE INDEX queries_at ON queries (at)
