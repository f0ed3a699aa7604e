-- How many bytes of a stream are in rows, and how many may stay: 0 until the first time that it matters.

ALTER TABLE streams ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN quota INTEGER NOT NULL DEFAULT 0;
UPDATE streams SET kept = length - COALESCE((
    SELECT sum(gaps.length) FROM gaps WHERE gaps.command = streams.command AND gaps.stream = streams.stream
), 0);
