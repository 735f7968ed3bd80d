-- readable from: 1
-- IF NOT EXISTS: several worker processes may make the file at the same moment.
CREATE TABLE IF NOT EXISTS tries (
    network   TEXT NOT NULL,  -- '' = anywhere
    who       TEXT NOT NULL,  -- domain, or address
    recipient TEXT NOT NULL,
    first     REAL NOT NULL,  -- epoch seconds
    last      REAL NOT NULL,
    passed    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (network, who, recipient)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tries_last ON tries (last);
CREATE TABLE IF NOT EXISTS domains (  -- delivered here with SPF pass
    domain TEXT PRIMARY KEY,
    last   REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS domains_last ON domains (last);
