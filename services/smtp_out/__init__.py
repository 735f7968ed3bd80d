"""The room that sends: takes mail from people who log in, signs and queues it, and brings it to where it goes.

Owns the spool volume (messages and queue.db) and, in its own folder, the bans and the facts on their way to admin.
Mail clients call it on 465 and 587, smtp-in on the internal 10025 (forwards), admin over HTTP (queue, bans). It asks
dkim for signatures, hands local mail to smtp-in by LMTP, and reads the published directory.

A message's way: `submission` (or `forwards`) → `signing` → storage/spool → 250 → `queue_runner` → `next_hop` →
`attempt` → smtp/client. It never reads mailboxes, holds no DKIM key, and never answers 250 before the message is
durable.
"""
