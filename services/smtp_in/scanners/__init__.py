"""Scanners beside the house: rspamd or SpamAssassin for junk, ClamAV for viruses, each in a container of its own.

Off by default. `SPAM_SCANNER` and `VIRUS_SCANNER` (env/filter.env) name them, `scripts/up` starts their containers with
them (the profiles of compose.yaml). A module here for each: it sends one message to one scanner and reads one answer.
What an answer is worth is said elsewhere, so it comes back as a `Finding`.

A scanner sees every message and talks only to smtp-in: it can neither read mailboxes nor pretend to be another room.
What it answers is bounded, and trusted no further than as an opinion. Where it is away, slow or talks nonsense, the
finding says so in `problem`; no exception leaves here.
"""
