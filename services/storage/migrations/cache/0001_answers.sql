-- cache.db of one account: made from the messages, may be deleted at any time.

CREATE TABLE origin (
    state_id         TEXT    NOT NULL,  -- of the state.db whose UIDs these are
    parser           INTEGER NOT NULL   -- version of the parser that made the answers
);

-- id = mailbox * 2^32 + UID: one key for both, so that a mailbox's rows lie together in the order of UIDs. (WITHOUT ROWID
-- would put all but the first kilobyte of a row into pages of its own: three times the size.)

-- What is asked for thousands of messages at once; forty bytes each.
CREATE TABLE measures (
    id               INTEGER PRIMARY KEY,
    size             INTEGER NOT NULL,  -- RFC822.SIZE
    header_size      INTEGER NOT NULL,
    sent             INTEGER            -- Date, seconds
);

CREATE TABLE answers (
    id               INTEGER PRIMARY KEY,
    envelope         BLOB    NOT NULL,
    bodystructure    BLOB    NOT NULL,
    body             BLOB    NOT NULL,
    parts            BLOB    NOT NULL,
    preview          TEXT    NOT NULL,
    field_order      BLOB    NOT NULL,  -- numbers of the header fields below in the order of their first occurrence
    h_from           BLOB,
    h_sender         BLOB,
    h_reply_to       BLOB,
    h_to             BLOB,
    h_cc             BLOB,
    h_bcc            BLOB,
    h_subject        BLOB,
    h_date           BLOB,
    h_message_id     BLOB,
    h_in_reply_to    BLOB,
    h_references     BLOB,
    h_content_type   BLOB,
    h_list_id        BLOB,
    h_x_priority     BLOB,
    h_importance     BLOB
);
