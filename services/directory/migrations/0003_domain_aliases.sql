-- readable from: 1
-- The domain as which every address of this one answers; '' for a domain with addresses of its own.
ALTER TABLE domains ADD COLUMN alias_of TEXT NOT NULL DEFAULT '';
