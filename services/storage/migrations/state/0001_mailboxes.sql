-- state.db of one account: what neither the names in the Maildir nor the messages themselves can tell.

CREATE TABLE account (
    id               INTEGER PRIMARY KEY CHECK (id = 1),
    state_id         TEXT    NOT NULL,  -- random; cache.db names the state it was made for
    modseq           INTEGER NOT NULL,  -- the highest given so far, in any mailbox
    uidvalidity      INTEGER NOT NULL,  -- the highest given so far
    unsettled_boot   TEXT    NOT NULL   -- the boot during which something was acknowledged without fsync; '' = settled
);

CREATE TABLE mailboxes (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    mailboxid        TEXT    NOT NULL UNIQUE,  -- RFC 8474 MAILBOXID
    name             TEXT    NOT NULL UNIQUE,  -- Unicode, '.' between levels
    folder           TEXT    NOT NULL UNIQUE,  -- below the Maildir; '' = INBOX
    special_use      TEXT    NOT NULL,         -- RFC 6154, '\Sent' or ''
    uidvalidity      INTEGER NOT NULL,
    uidnext          INTEGER NOT NULL,
    recent_from      INTEGER NOT NULL,         -- UIDs from here on no session has had as \Recent
    modseq           INTEGER NOT NULL,         -- HIGHESTMODSEQ
    forgotten        INTEGER NOT NULL,         -- expunges up to this modseq are no longer listed
    created          INTEGER NOT NULL,
    -- Sums over the mailbox's messages, so that STATUS of fifty mailboxes reads fifty rows.
    messages         INTEGER NOT NULL DEFAULT 0,
    unseen           INTEGER NOT NULL DEFAULT 0,
    deleted          INTEGER NOT NULL DEFAULT 0,
    octets           INTEGER NOT NULL DEFAULT 0,
    -- Modification times (ns) of the folders as of these rows; other than on the disk = look there.
    new_time         INTEGER NOT NULL DEFAULT 0,
    cur_time         INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE messages (
    mailbox          INTEGER NOT NULL,
    uid              INTEGER NOT NULL,
    file             TEXT    NOT NULL,  -- the name in cur/, flags and all
    flags            INTEGER NOT NULL,  -- bits of maildir.py; keyword number n of the mailbox is bit 8 + n
    modseq           INTEGER NOT NULL,
    date             INTEGER NOT NULL,  -- INTERNALDATE, seconds
    saved            INTEGER NOT NULL,  -- RFC 8514 SAVEDATE, seconds
    octets           INTEGER NOT NULL,  -- of the file
    emailid          TEXT,              -- RFC 8474; NULL = made from the file's name
    threadid         TEXT,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;

-- RFC 7162: UIDs that were here, for VANISHED.
CREATE TABLE expunged (
    mailbox          INTEGER NOT NULL,
    uid              INTEGER NOT NULL,
    modseq           INTEGER NOT NULL,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;

-- Files of expunged messages whose removal is not known to be on the disk: found again after a crash, they go again.
CREATE TABLE doomed (
    mailbox          INTEGER NOT NULL,
    base             TEXT    NOT NULL,
    PRIMARY KEY (mailbox, base)
) WITHOUT ROWID;

CREATE TABLE keywords (
    mailbox          INTEGER NOT NULL,
    number           INTEGER NOT NULL,  -- 0..25 are the letters a-z in file names
    name             TEXT    NOT NULL,
    PRIMARY KEY (mailbox, number)
) WITHOUT ROWID;

-- RFC 3501 §6.3.6: a name may be subscribed without such a mailbox.
CREATE TABLE subscriptions (
    name             TEXT    PRIMARY KEY
) WITHOUT ROWID;

-- RFC 5464; mailbox 0 = the server, as this account sees it.
CREATE TABLE metadata (
    mailbox          INTEGER NOT NULL,
    entry            TEXT    NOT NULL,
    value            BLOB    NOT NULL,
    PRIMARY KEY (mailbox, entry)
) WITHOUT ROWID;
