CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- so that an id is never given twice, also when the newest were deleted
    at REAL NOT NULL,
    action TEXT NOT NULL,
    service TEXT NOT NULL,
    replica TEXT,
    policy TEXT NOT NULL,
    inputs TEXT NOT NULL,
    decision TEXT NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL
);
CREATE INDEX events_at ON events (at);
CREATE INDEX events_service ON events (service, id)
