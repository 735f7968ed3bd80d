"""The only code that touches mail on disk: durable writes, Maildir, delivery, the IMAP store, the queue's spool.

Owns the mail volume (`<domain>/<local>/` Maildir++ trees, `.incoming/` staging, `.deleted/`), the IMAP room's state
volume (`<domain>/<local>/{state.db,cache.db}`) and the spool. Called by smtp_in (delivery), imap (mailboxes) and
smtp_out (spool). Never decides who gets a message, never talks to a network, never changes a message's bytes.

A message's way: `incoming` (the body while it arrives) → `delivery` (begin, recipient, body, commit) → `committer`
(one batch of writes, one durable moment) → the Maildir → `account` and `mailbox` (UIDs, flags, what IMAP shows).
"""
