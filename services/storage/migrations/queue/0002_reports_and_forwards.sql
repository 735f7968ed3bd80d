-- readable from: 1
-- What a sender asked of reports (RFC 3461) and of TLS (RFC 8689), as it came in MAIL and RCPT; '' for nothing.
ALTER TABLE messages ADD COLUMN ret TEXT NOT NULL DEFAULT '';
ALTER TABLE messages ADD COLUMN envid TEXT NOT NULL DEFAULT '';
ALTER TABLE messages ADD COLUMN requiretls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipients ADD COLUMN notify TEXT NOT NULL DEFAULT '';
ALTER TABLE recipients ADD COLUMN orcpt TEXT NOT NULL DEFAULT '';

-- Forwards that left on a day (epoch days, UTC), counted against FORWARD_PER_DAY; told: the administrator knows.
CREATE TABLE forwarded (
    day         INTEGER PRIMARY KEY,
    count       INTEGER NOT NULL,
    told        INTEGER NOT NULL DEFAULT 0
);
