"""What the queue does at its start: brings state and files together after a stop, a crash or a restore.

Called by `queue_store.py` before anybody else has the database. What was in flight may have arrived and is counted; a
file without a row was never acknowledged; after a restore everything is held until the owner has looked at it.
"""

from __future__ import annotations

import sqlite3

from services.storage.queue import Recovery
from services.storage.spool import Spool

INTERRUPTED = "this server stopped during the attempt; the message may have arrived"


def recover(db: sqlite3.Connection, spool: Spool, now: float) -> Recovery:
    """Bring state and files together after a stop, a crash or a restore."""
    restored = spool.restored
    db.execute("CREATE TEMP TABLE files (name TEXT PRIMARY KEY) WITHOUT ROWID")
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO files VALUES (?)", ((name,) for name in spool.names()))
    db.execute(
        "INSERT INTO attempts SELECT message, address, ?, '', 'interrupted', ? FROM recipients WHERE state = 1",
        (now, INTERRUPTED),
    )
    interrupted = db.execute(
        "UPDATE recipients SET state = (SELECT CASE held WHEN 1 THEN 2 ELSE 0 END FROM messages WHERE id = message), "
        "next = ?, last_reply = ? WHERE state = 1",
        (now, INTERRUPTED),
    ).rowcount
    missing = [row[0] for row in db.execute("SELECT id FROM messages EXCEPT SELECT name FROM files").fetchall()]
    if restored:
        # A hot backup takes the state first and the files after it: what left in between has no file, and had arrived.
        db.executemany("DELETE FROM messages WHERE id = ?", ((identity,) for identity in missing))
        db.execute("UPDATE recipients SET state = 2 WHERE state = 0")
        db.execute("UPDATE messages SET held = 1")
    queued = db.execute("SELECT COUNT(*) FROM messages").fetchone()[0]
    db.execute("COMMIT")
    if restored:
        spool.looked_at()
    orphans = 0
    # A file without a row was never acknowledged (the row comes before the 250), or is wanted no more (the row goes
    # before the file).
    for (name,) in db.execute("SELECT name FROM files EXCEPT SELECT id FROM messages"):
        spool.remove(name)
        orphans += 1
    db.execute("DROP TABLE files")
    return Recovery(queued, interrupted, orphans, tuple(missing), restored)
