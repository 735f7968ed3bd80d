"""The room that receives: port 25 from the world, LMTP from smtp-out, into the Maildirs.

Owns `/var/mail/.incoming/` (its staging) and adds files to account folders, which it can neither list nor read. Reads
the routing snapshot. Hands forwards to smtp-out by SMTP, tells imap of new mail by HTTP. Called by other mail servers,
by smtp-out, and by admin for its status.

A message's way: `smtp/engine` → `intake` (the story) → `policy/intake` (the decision) → `policy/routes` → `deliver` →
`forward` and storage/delivery → 250 → `hints`. It never relays for strangers, never reads mail that was delivered,
knows no password, and never says 250 before the message is durable.
"""
