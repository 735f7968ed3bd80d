-- readable from: 1
-- Domains whose addresses answer as those of `existing`; each stands in `domains` too, where code from before this finds
-- it. What such code leaves of a domain that it deletes means nothing.
CREATE TABLE domain_aliases (
    name TEXT PRIMARY KEY,
    existing TEXT NOT NULL
) STRICT, WITHOUT ROWID;
