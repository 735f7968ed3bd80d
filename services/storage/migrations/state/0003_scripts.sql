-- readable from: 1
-- Sieve scripts of the account (RFC 5804 §1.4: at most one is active).

CREATE TABLE scripts (
    name             TEXT    PRIMARY KEY,
    content          BLOB    NOT NULL,
    active           INTEGER NOT NULL CHECK (active IN (0, 1)),
    changed          INTEGER NOT NULL   -- seconds
);
CREATE UNIQUE INDEX active_script ON scripts (active) WHERE active = 1;

-- Whether the scripts of a server that had this Maildir before were looked for; they are taken in once.
CREATE TABLE scripts_before_us (
    looked           INTEGER NOT NULL
);
