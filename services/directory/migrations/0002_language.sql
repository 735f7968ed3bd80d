-- readable from: 1
-- The language in which an account reads the page: a BCP 47 tag, '' for what its browser asks for.
ALTER TABLE accounts ADD COLUMN language TEXT NOT NULL DEFAULT '';
