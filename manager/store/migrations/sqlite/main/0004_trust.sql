-- Who may connect, who may do what, and the site that says so.

-- What the join token gave: groups as a JSON list, and which token it was.
ALTER TABLE agents ADD COLUMN groups TEXT NOT NULL DEFAULT '[]';
ALTER TABLE agents ADD COLUMN join_token TEXT;

-- Keys that an agent may show: the one in use and at most one newer. No row: the first that is shown is bound.
CREATE TABLE agent_keys (
    number        INTEGER PRIMARY KEY,       -- higher is newer within one agent
    generation    INTEGER NOT NULL,          -- agents.generation
    spki          BLOB    NOT NULL,          -- SHA-256 of the public key
    issuer        INTEGER,                   -- number of the authority; NULL: certified before keys were written down
    issued_at     INTEGER NOT NULL,
    not_after     INTEGER,
    first_used_at INTEGER
) STRICT;
CREATE UNIQUE INDEX agent_keys_spki ON agent_keys (generation, spki);

CREATE TABLE join_tokens (
    id           TEXT PRIMARY KEY,
    hash         BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER NOT NULL,
    uses         INTEGER NOT NULL,
    used         INTEGER NOT NULL DEFAULT 0,
    name_pattern TEXT,                       -- NULL: any name
    groups       TEXT    NOT NULL,           -- JSON list
    cidrs        TEXT    NOT NULL,           -- JSON list; empty: from anywhere
    revoked_at   INTEGER
) STRICT;

-- Who took a use: the same key may ask again when the answer was lost.
CREATE TABLE joins (
    token      TEXT    NOT NULL,
    spki       BLOB    NOT NULL,
    name       TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (token, spki)
) STRICT, WITHOUT ROWID;

-- Certificates of operators; the generation stands in the certificate and is never given out twice.
CREATE TABLE operators (
    generation INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    not_after  INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX operators_name ON operators (name);

-- Tokens made before there were roles may do what their scope allows, as they always could.
ALTER TABLE tokens ADD COLUMN roles TEXT NOT NULL DEFAULT '["admin"]';

-- JSON of who submitted it and how they showed who they are. NULL: the manager itself, or made before this was kept.
ALTER TABLE commands ADD COLUMN authority TEXT;

CREATE TABLE site_revisions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    source TEXT    NOT NULL,
    hash   BLOB    NOT NULL,                 -- of all paths and contents
    status TEXT    NOT NULL,                 -- live, held, rejected; the newest live one is in force
    note   TEXT
) STRICT;

CREATE TABLE site_files (
    revision INTEGER NOT NULL,
    path     TEXT    NOT NULL,
    hash     BLOB    NOT NULL,               -- site_blobs.hash
    PRIMARY KEY (revision, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX site_files_hash ON site_files (hash);

-- Contents, each once however many revisions have it.
CREATE TABLE site_blobs (
    hash    BLOB PRIMARY KEY,
    content BLOB NOT NULL
) STRICT;
