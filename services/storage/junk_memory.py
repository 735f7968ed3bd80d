"""What an account has sorted into junk and good mail, in state.db: learned once, taken back exactly, bounded.

Got from `AccountStore.junk`, used by imap's trainer on the account's thread. A message is known by its EMAILID, which
stays when it is moved or copied, so sorting it twice counts once, and sorting it the other way takes back what was
counted before. What a person said is not undone by what is only inferred (read and kept).

Each method is one transaction, not fsynced: what a power cut takes of the last second is a lesson, not a letter. The
model that smtp-in reads is made from these tables by `model`; nothing here is in memory between two calls.
"""

from __future__ import annotations

import secrets
import sqlite3
from array import array
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from services.storage.junk_model import KEY_OCTETS, Contents, Sorted, count, hash_of, write

# 300,000 tokens are about 12 MB of state.db and 3.6 MB of model: some thousand messages' words, years of a family's.
MOST_TOKENS = 300_000
# Thrown out at one go, so that it is seldom done.
_THROWN = 30_000
MOST_MESSAGES = 20_000
MOST_KNOWN = 20_000
_DAY = 86_400
# SQLite's limit of parameters is 32,766 since 3.32, 999 before.
_AT_ONCE = 900


@dataclass(frozen=True, slots=True)
class Learned:
    """A message as it was learned. `person`: somebody said so, other than that it was read and kept."""

    junk: bool
    person: bool
    version: int


@dataclass(frozen=True, slots=True)
class Words:
    """What is learned of a message: its tokens, of which version, and whether it is written in CJK."""

    tokens: tuple[str, ...]
    version: int
    cjk: bool


class JunkMemory:
    """The tables of migrations/state/0002_junk.sql."""

    def __init__(
        self,
        database: sqlite3.Connection,
        transaction: Callable[[], AbstractContextManager[None]],
        clock: Callable[[], float],
    ) -> None:
        """`transaction` is the state's; `clock` in seconds since the epoch."""
        self._database, self._transaction, self._clock = database, transaction, clock

    def learned(self, emailid: str) -> Learned | None:
        """What the message counts as now."""
        row = self._database.execute(
            "SELECT junk, person, version FROM junk_messages WHERE emailid = ?", (emailid,)
        ).fetchone()
        return Learned(bool(row[0]), bool(row[1]), row[2]) if row else None

    def learn(self, emailid: str, words: Words, *, junk: bool, person: bool) -> bool:
        """Count the message as junk or good; whether that changed anything. Takes back what it counted as before."""
        before = self.learned(emailid)
        if before is not None and before.person and not person:
            return False
        if before is not None and before.junk is junk:
            if person and not before.person:
                with self._transaction():
                    self._database.execute("UPDATE junk_messages SET person = 1 WHERE emailid = ?", (emailid,))
            return False
        with self._transaction():
            hashes = self._hashes(words.tokens)
            if before is not None:
                self._take_back(emailid, hashes)
            self._count(hashes, junk)
            self._database.execute(
                "INSERT INTO junk_messages VALUES (?, ?, ?, ?, ?, ?)",
                (emailid, junk, person, words.cjk, words.version, self._day()),
            )
            self._change(junk=junk, cjk=words.cjk, by=1)
        return True

    def forget(self, emailid: str, words: Words) -> bool:
        """Count the message as nothing any more; whether it counted."""
        if self.learned(emailid) is None:
            return False
        with self._transaction():
            self._take_back(emailid, self._hashes(words.tokens))
        return True

    def know(self, senders: Iterable[str]) -> None:
        """Remember `senders` (see `junk_model.wrote_to` and its like)."""
        with self._transaction():
            key, day = self._key(), self._day()
            self._database.executemany(
                "INSERT INTO junk_known VALUES (?, ?) ON CONFLICT (hash) DO UPDATE SET day = excluded.day",
                [(hash_of(key, sender), day) for sender in senders],
            )
            self._database.execute("UPDATE junk_account SET changed = changed + 1")

    def sorted(self) -> Sorted:
        """How many messages count."""
        row = self._database.execute("SELECT junk, good, cjk_junk, cjk_good FROM junk_account").fetchone()
        return Sorted(*row) if row else Sorted()

    def known(self) -> int:
        """How many senders are known."""
        (count_of,) = self._database.execute("SELECT count(*) FROM junk_known").fetchone()
        return int(count_of)

    def unpublished(self) -> bool:
        """True where the published model, if there is one, does not have the last changes."""
        row = self._database.execute("SELECT changed <> published FROM junk_account").fetchone()
        return bool(row[0]) if row else True

    def model(self, version: int) -> tuple[bytes, int]:
        """The model as a file, and the change it stands at, for `was_published`. Throws out what is too much first."""
        with self._transaction():
            key = self._key()
            self._throw_out()
            (change,) = self._database.execute("SELECT changed FROM junk_account").fetchone()
        hashes, counts = array("q"), array("H")
        for token, junk, good in self._database.execute("SELECT hash, junk, good FROM junk_tokens ORDER BY hash"):
            hashes.append(token)
            counts.append(count(junk))
            counts.append(count(good))
        known = array("q", [row[0] for row in self._database.execute("SELECT hash FROM junk_known ORDER BY hash")])
        return write(Contents(key, version, self._clock(), self.sorted(), hashes, counts, known)), change

    def was_published(self, change: int) -> None:
        """The model of `change` is on the disk."""
        with self._transaction():
            self._database.execute("UPDATE junk_account SET published = ?", (change,))

    # --- within a transaction

    def _day(self) -> int:
        return int(self._clock()) // _DAY

    def _key(self) -> bytes:
        row = self._database.execute("SELECT key FROM junk_account").fetchone()
        if row is None:
            row = (secrets.token_bytes(KEY_OCTETS),)
            self._database.execute("INSERT INTO junk_account (id, key) VALUES (1, ?)", row)
        key: bytes = row[0]
        return key

    def _hashes(self, tokens: Iterable[str]) -> list[int]:
        key = self._key()
        # In the order of the table: a message's words lie all over it, and each page is then touched once.
        return sorted({hash_of(key, token) for token in tokens})

    def _count(self, hashes: list[int], junk: bool) -> None:
        day = self._day()
        self._database.executemany(
            "INSERT INTO junk_tokens VALUES (?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET "
            "junk = junk + excluded.junk, good = good + excluded.good, day = excluded.day",
            [(token, int(junk), int(not junk), day) for token in hashes],
        )

    def _take_back(self, emailid: str, hashes: list[int]) -> None:
        """Tokens of another version may never have been counted: no count goes below zero."""
        junk, cjk = self._database.execute(
            "SELECT junk, cjk FROM junk_messages WHERE emailid = ?", (emailid,)
        ).fetchone()
        column = "junk" if junk else "good"
        for start in range(0, len(hashes), _AT_ONCE):
            some = hashes[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            self._database.execute(
                f"UPDATE junk_tokens SET {column} = max({column} - 1, 0) WHERE hash IN ({marks})", some
            )
            self._database.execute(f"DELETE FROM junk_tokens WHERE hash IN ({marks}) AND junk = 0 AND good = 0", some)
        self._database.execute("DELETE FROM junk_messages WHERE emailid = ?", (emailid,))
        self._change(junk=bool(junk), cjk=bool(cjk), by=-1)

    def _change(self, *, junk: bool, cjk: bool, by: int) -> None:
        kind = "junk" if junk else "good"
        self._database.execute(
            f"UPDATE junk_account SET changed = changed + 1, {kind} = max({kind} + ?, 0), "
            f"cjk_{kind} = max(cjk_{kind} + ?, 0)",
            (by, by if cjk else 0),
        )

    def _throw_out(self) -> None:
        """Words seen once go first, the longest unseen of them; then the longest unseen of all."""
        (tokens,) = self._database.execute("SELECT count(*) FROM junk_tokens").fetchone()
        if tokens > MOST_TOKENS:
            self._database.execute(
                "DELETE FROM junk_tokens WHERE hash IN "
                "(SELECT hash FROM junk_tokens ORDER BY junk + good > 1, day LIMIT ?)",
                (tokens - MOST_TOKENS + _THROWN,),
            )
        # What was learned long ago stays learned; only that it could be taken back is forgotten.
        for table, key, most in (("junk_messages", "emailid", MOST_MESSAGES), ("junk_known", "hash", MOST_KNOWN)):
            (rows,) = self._database.execute(f"SELECT count(*) FROM {table}").fetchone()
            if rows > most:
                self._database.execute(
                    f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} ORDER BY day LIMIT ?)",
                    (rows - most + most // 20,),
                )
