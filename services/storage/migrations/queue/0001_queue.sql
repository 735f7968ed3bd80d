-- The outgoing queue's state. The messages themselves are files in the spool; every row here was durable before a 250.
-- Times are epoch seconds.

CREATE TABLE messages (
    id          TEXT PRIMARY KEY,           -- 16 characters that sort by time; the spool file's name
    trace       TEXT NOT NULL,              -- of the submission; a report about a message has a trace of its own
    kind        TEXT NOT NULL,              -- submission, forward or report
    sender      TEXT NOT NULL,              -- envelope sender, '' for the null sender
    account     TEXT NOT NULL,              -- who submitted it, '' for forwards and reports
    created     REAL NOT NULL,
    start       INTEGER NOT NULL,           -- where in the spool file the message begins
    size        INTEGER NOT NULL,           -- octets from there
    eight_bit   INTEGER NOT NULL,
    smtputf8    INTEGER NOT NULL,
    held        INTEGER NOT NULL DEFAULT 0, -- the owner keeps it; its recipients that are not done are in state 2
    message_id  TEXT NOT NULL               -- the Message-ID field, for people who look for it
) WITHOUT ROWID;

CREATE TABLE recipients (
    message     TEXT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    address     TEXT NOT NULL,
    destination TEXT NOT NULL,              -- what shares connections and troubles: a domain, 'local' or 'relay'
    state       INTEGER NOT NULL,           -- 0 waiting, 1 in flight, 2 held, 3 delivered, 4 failed
    attempts    INTEGER NOT NULL DEFAULT 0,
    next        REAL NOT NULL,              -- not before this time
    warned      INTEGER NOT NULL DEFAULT 0, -- the sender was told of the delay
    last_reply  TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message, address)
) WITHOUT ROWID;

-- What to try next, without looking at the hundred thousand that wait for later.
CREATE INDEX recipients_waiting ON recipients (destination, next) WHERE state = 0;
CREATE INDEX recipients_in_flight ON recipients (message) WHERE state = 1;

-- What each remote said, in its own words, until the message leaves the queue (the events keep it longer).
CREATE TABLE attempts (
    message     TEXT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    address     TEXT NOT NULL,
    at          REAL NOT NULL,
    remote      TEXT NOT NULL,              -- name and address of the server, '' where none was reached
    outcome     TEXT NOT NULL,              -- delivered, deferred, failed or interrupted
    reply       TEXT NOT NULL
);
CREATE INDEX attempts_message ON attempts (message);

-- What other rooms handed over, so that a hand-over whose 250 got lost is not taken twice.
CREATE TABLE taken (
    trace       TEXT NOT NULL,
    address     TEXT NOT NULL,
    at          REAL NOT NULL,
    PRIMARY KEY (trace, address)
) WITHOUT ROWID;
CREATE INDEX taken_at ON taken (at);
