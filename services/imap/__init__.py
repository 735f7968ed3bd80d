"""The imap room: people read their mail here, on 993 with TLS and on 143 with STARTTLS.

Owns the mail volume's account folders (it makes them, smtp-in may only add to them), `state.db` and `cache.db` of each
account, and its list of bans. Called by mail clients, by smtp-in with hints about new mail, by admin with accounts to
make or delete. Never sends mail, never sees a password but to compare it, never changes a message.

A command's way: `connection` (octets, time limits) → `protocol/imap_reader` → `protocol/imap_parse` → `session` (may it
be done now?) → `handlers/...` on the account's thread → `storage/mailbox` → `protocol/imap_responses` → `connection`.
"""
