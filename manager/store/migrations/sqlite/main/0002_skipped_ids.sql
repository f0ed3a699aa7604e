-- Ids of commands that a life of the store never gives out because an earlier one may have: those above `ids_above`, up
-- to `ids_to`. NULL for the first life.
ALTER TABLE incarnations ADD COLUMN ids_above INTEGER;
ALTER TABLE incarnations ADD COLUMN ids_to INTEGER;
