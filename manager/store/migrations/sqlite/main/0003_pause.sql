-- The wish that a command pauses or goes on. The number of the newest wish stays when the wish itself is done.
ALTER TABLE commands ADD COLUMN pause TEXT;
ALTER TABLE commands ADD COLUMN pause_wish    INTEGER NOT NULL DEFAULT 0;
ALTER TABLE commands ADD COLUMN pause_due     INTEGER;                      -- 1: the agent has not answered; NULL: nothing to tell
ALTER TABLE commands ADD COLUMN pause_epoch   INTEGER NOT NULL DEFAULT 0;   -- session that was told of the wish
ALTER TABLE commands ADD COLUMN pause_sent_at INTEGER NOT NULL DEFAULT 0;
-- How often the agent has moved the command: beyond a bound its moves make no events.
ALTER TABLE commands ADD COLUMN moves INTEGER NOT NULL DEFAULT 0;
CREATE INDEX commands_pause ON commands (agent) WHERE pause_due IS NOT NULL;
