-- Times are Unix milliseconds of the manager. Phases and streams are numbers: see src/sqlite/codes.rs.

-- One row. The position grows with every commit that changes anything. The head of the audit stands here so that rows
-- missing at its end are noticed; the anchor is the last row that retention removed.
CREATE TABLE meta (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    cluster      TEXT    NOT NULL,
    incarnation  INTEGER NOT NULL,
    position     INTEGER NOT NULL,
    audit_seq    INTEGER NOT NULL,
    audit_hash   BLOB    NOT NULL,
    anchor_seq   INTEGER NOT NULL,
    anchor_hash  BLOB    NOT NULL
) STRICT;

-- Every life of this store. An agent that heard of another one has talked to a store that this one is older than.
CREATE TABLE incarnations (
    incarnation INTEGER PRIMARY KEY,
    began_at    INTEGER NOT NULL
) STRICT;

-- The generation is the key: one row for each bearer of a name, kept after removal as long as commands point at it.
CREATE TABLE agents (
    generation      INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL,
    epoch           INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    removed_at      INTEGER,
    connected_at    INTEGER,
    disconnected_at INTEGER,
    address         TEXT,
    version         TEXT,
    isolation       TEXT,
    journal         BLOB,
    boot_id         TEXT,
    cores           INTEGER,
    memory_bytes    INTEGER,
    labels          TEXT    NOT NULL DEFAULT '{}',
    quarantined     TEXT,
    drained         INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX agents_present ON agents (name) WHERE removed_at IS NULL;
CREATE INDEX agents_ever ON agents (name);

CREATE TABLE jobs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    operation  TEXT    NOT NULL,
    request    TEXT    NOT NULL,
    total      INTEGER NOT NULL
) STRICT;

CREATE TABLE commands (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    uid                BLOB    NOT NULL,
    agent              INTEGER NOT NULL,               -- agents.generation
    job                INTEGER,
    attempt            INTEGER NOT NULL,
    operation          TEXT    NOT NULL,
    request            TEXT,                           -- NULL: that of the job
    phase              INTEGER NOT NULL,
    live               INTEGER,                        -- 1: to be looked after; 2: held since a restore; NULL: nothing left to do
    waiting            TEXT,
    created_at         INTEGER NOT NULL,
    created_by         TEXT    NOT NULL,
    expires_at         INTEGER NOT NULL,
    first_sent_at      INTEGER,
    first_sent_journal BLOB,
    last_sent_at       INTEGER NOT NULL DEFAULT 0,
    not_before         INTEGER NOT NULL DEFAULT 0,     -- the agent deferred it until then
    accepted_at        INTEGER,
    started_at         INTEGER,
    finished_at        INTEGER,
    progress           TEXT,
    cancel             TEXT,
    cancel_epoch       INTEGER NOT NULL DEFAULT 0,     -- session that was told of the wish
    cancel_sent_at     INTEGER NOT NULL DEFAULT 0,
    end                TEXT,
    stream_ends        TEXT,
    end_reported       INTEGER NOT NULL DEFAULT 0,     -- by the agent
    output_closed      INTEGER NOT NULL DEFAULT 0,     -- 1: the manager waits for no more bytes; 2: the agent has none any more
    result_acked       INTEGER NOT NULL DEFAULT 0,
    isolation          TEXT
) STRICT;
CREATE UNIQUE INDEX commands_uid ON commands (uid);
CREATE INDEX commands_agent ON commands (agent);
CREATE INDEX commands_job ON commands (job) WHERE job IS NOT NULL;
CREATE INDEX commands_live ON commands (live, phase, agent) WHERE live IS NOT NULL;
CREATE INDEX commands_cancel ON commands (agent) WHERE cancel IS NOT NULL AND live IS NOT NULL;

-- What was reported about a command after the manager had ended it itself.
CREATE TABLE evidence (
    id      INTEGER PRIMARY KEY,
    command INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    body    TEXT    NOT NULL
) STRICT;
CREATE INDEX evidence_command ON evidence (command);

-- The commands of one submit have consecutive ids.
CREATE TABLE idempotency (
    id            INTEGER PRIMARY KEY,
    actor         TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    fingerprint   BLOB    NOT NULL,
    at            INTEGER NOT NULL,
    job           INTEGER,
    first_command INTEGER NOT NULL,
    commands      INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX idempotency_key ON idempotency (actor, key);

CREATE TABLE events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    agent   TEXT,
    command INTEGER,
    body    TEXT    NOT NULL
) STRICT;

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    object  TEXT    NOT NULL,
    outcome TEXT    NOT NULL,
    details TEXT    NOT NULL,
    hash    BLOB    NOT NULL
) STRICT;

CREATE TABLE tokens (
    id           TEXT PRIMARY KEY,
    hash         BLOB    NOT NULL,
    name         TEXT    NOT NULL,
    scope        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
) STRICT;
