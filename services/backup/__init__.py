"""The backup: the whole stack, while it runs, into one tar, and back.

A one-shot container (`python -m services.backup save|check|restore`) that scripts/backup and scripts/restore run: root
with CHOWN, DAC_OVERRIDE and FOWNER alone, no network, every volume under /volumes. The tar goes through standard output
and input; the owner's env files are handed over and back as a small tar on the other stream.

In the tar: `mailstead.json` (what and when), `env/`, a folder per volume, and last `SHA256SUMS` of all before it, which
`sha256sum -c` reads too. `contents` says what of each volume belongs in it and in which order. A database is copied by
SQLite's backup; a mailbox by hard links (`maildir_copy`); what can be made again (cache.db, events.db, the published
snapshots) is left out.
"""
