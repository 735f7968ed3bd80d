-- cache.db of one account: made from the messages, may be deleted at any time.

CREATE TABLE origin (
    state_id         TEXT    NOT NULL,  -- of the state.db whose UIDs these are
    parser           INTEGER NOT NULL   -- version of the parser that made the answers
);

CREATE TABLE answers (
    mailbox          INTEGER NOT NULL,
    uid              INTEGER NOT NULL,
    size             INTEGER NOT NULL,  -- RFC822.SIZE
    header_size      INTEGER NOT NULL,
    sent             INTEGER,
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
    h_importance     BLOB,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;
