-- vacation.db: whom rules have answered, and how many messages they have sent on today.

CREATE TABLE answers (
    account          TEXT    NOT NULL,
    handle           TEXT    NOT NULL,  -- a hash of the script's handle
    sender           TEXT    NOT NULL,
    until            REAL    NOT NULL,  -- seconds; not answered again before
    PRIMARY KEY (account, handle, sender)
) WITHOUT ROWID;
CREATE INDEX answers_by_time ON answers (until);

CREATE TABLE redirects (
    account          TEXT    NOT NULL,
    day              INTEGER NOT NULL,
    messages         INTEGER NOT NULL,
    PRIMARY KEY (account, day)
) WITHOUT ROWID;
