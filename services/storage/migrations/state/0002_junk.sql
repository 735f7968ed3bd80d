-- readable from: 1
-- The junk filter's memory of one account: what was sorted, by whom, and what its words were (as hashes).

CREATE TABLE junk_account (
    id               INTEGER PRIMARY KEY CHECK (id = 1),
    key              BLOB    NOT NULL,  -- of the hashes; random, this account's own
    junk             INTEGER NOT NULL DEFAULT 0,  -- messages that count as junk now, and as good
    good             INTEGER NOT NULL DEFAULT 0,
    cjk_junk         INTEGER NOT NULL DEFAULT 0,  -- of them those written in Chinese, Japanese or Korean
    cjk_good         INTEGER NOT NULL DEFAULT 0,
    changed          INTEGER NOT NULL DEFAULT 0,  -- goes up by one with each change
    published        INTEGER NOT NULL DEFAULT -1  -- `changed` as of the published model
);

CREATE TABLE junk_tokens (
    hash             INTEGER PRIMARY KEY,  -- 64 bits, signed
    junk             INTEGER NOT NULL,
    good             INTEGER NOT NULL,
    day              INTEGER NOT NULL      -- last seen, days since the epoch
);

-- What was learned, so that nothing is learned twice and everything can be taken back.
CREATE TABLE junk_messages (
    emailid          TEXT    PRIMARY KEY,  -- RFC 8474: stays through MOVE and COPY
    junk             INTEGER NOT NULL,     -- 1 or 0
    person           INTEGER NOT NULL,     -- 1: a person said so; 0: read and kept
    cjk              INTEGER NOT NULL,
    version          INTEGER NOT NULL,     -- of the tokens that were counted
    day              INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX junk_messages_day ON junk_messages (day);

CREATE TABLE junk_known (
    hash             INTEGER PRIMARY KEY,  -- of who was written to, of whom mail was kept
    day              INTEGER NOT NULL
);
