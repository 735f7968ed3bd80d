-- Domains, accounts, aliases. Addresses in the form of addresses.py; times in seconds since 1970.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE domains (
    name TEXT PRIMARY KEY,
    created REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- A deleted account keeps its row for as long as its mail is kept, so that the owner can see what may still be had back.
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    address TEXT NOT NULL,
    domain TEXT NOT NULL,
    local TEXT NOT NULL,
    login TEXT NOT NULL DEFAULT '',
    password_hash TEXT NOT NULL,
    enabled INTEGER NOT NULL DEFAULT 1,
    administrator INTEGER NOT NULL DEFAULT 0,
    quota_bytes INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    password_changed REAL NOT NULL,
    deleted_at REAL,
    last_used REAL,
    used_bytes INTEGER,
    used_messages INTEGER
) STRICT;
CREATE UNIQUE INDEX live_address ON accounts (address) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX live_login ON accounts (login) WHERE deleted_at IS NULL AND login <> '';

CREATE TABLE aliases (
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (source, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX by_target ON aliases (target);

-- One per device; the account's own password stays beside them. Scopes: space-separated smtp, imap, pop3, sieve, api.
CREATE TABLE app_passwords (
    id INTEGER PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    verifier TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created REAL NOT NULL,
    last_used REAL,
    UNIQUE (account, name)
) STRICT;

-- Facts from rooms that were taken: a room that did not hear our answer sends them again.
CREATE TABLE facts_taken (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX facts_by_time ON facts_taken (at);

-- What a change still owes to other rooms, written in the change's own transaction and removed when it is done: a
-- mailbox to make, a deleted account's mail to put away, a domain's keys to make. A crash or a room that is away delays
-- it; nothing is forgotten.
CREATE TABLE duties (
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL,
    PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;
