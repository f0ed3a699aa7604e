-- Bytes of commands, by offset. Streams are numbers: see src/sqlite/codes.rs.

CREATE TABLE streams (
    command INTEGER NOT NULL,
    stream  INTEGER NOT NULL,
    length  INTEGER NOT NULL,       -- offset behind the last byte or gap
    tail    INTEGER NOT NULL,       -- row of `chunks` that short writes are added to, 0 for none
    room    INTEGER NOT NULL,       -- bytes that still fit into it
    PRIMARY KEY (command, stream)
) STRICT, WITHOUT ROWID;

CREATE TABLE chunks (
    id      INTEGER PRIMARY KEY,
    command INTEGER NOT NULL,
    stream  INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    data    BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX chunks_start ON chunks (command, stream, start);

CREATE TABLE gaps (
    command INTEGER NOT NULL,
    stream  INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    length  INTEGER NOT NULL,
    PRIMARY KEY (command, stream, start)
) STRICT, WITHOUT ROWID;

-- One row that every sync changes, so that there is something to commit.
CREATE TABLE marks (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    syncs INTEGER NOT NULL
) STRICT;
INSERT INTO marks (id, syncs) VALUES (1, 0);
