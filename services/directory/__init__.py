"""Who has mail here: domains, accounts, aliases, and the passwords' hashes.

Owns `directory.db` (written by the admin room alone, through `changes.py`) and the two published snapshots, `routing`
(no hashes: smtp-in) and `auth` (with hashes: imap, smtp-out), which every other room reads through `lookup.py`. Called
by all rooms that meet an address. Never speaks a protocol, never touches mail, never opens the database in a room that
is not admin.
"""
