"""One mailbox as IMAP and POP3 see it: UIDs, flags and modseqs in memory, bodies from the Maildir by name.

Got from `AccountStore.mailbox`, used by the imap room on the account's thread. All sessions of an account share one
`Mailbox` object; each session keeps its own list of UIDs as sequence numbers and learns of changes by the Notifier or
by `changes_since`. What each change does on disk, and in which order, stands in look, flags, transfer and expunge.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.storage.body import Message
from services.storage.cache import Octets, Parsed, Parser
from services.storage.errors import MessageGone
from services.storage.expunge import expunge
from services.storage.flags import StoreMode, store
from services.storage.folder import Folder
from services.storage.incoming import copy_octets, unnamed_file
from services.storage.look import look
from services.storage.maildir import DELETED, virtual_size
from services.storage.paths import open_message
from services.storage.transfer import copy, email_id, move

# Parsed in one piece of memory up to here; larger ones from a private file, mapped.
_IN_MEMORY = 1 << 20
# Messages parsed between two commits of cache.db, and rows looked up at a time.
_PARSED_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Stored:
    """What STORE did. `refused`: changed since `unchanged_since` (RFC 7162 MODIFIED). `modseq` of the changed ones."""

    changed: tuple[int, ...]
    refused: tuple[int, ...]
    modseq: int


@dataclass(frozen=True, slots=True)
class Copied:
    """What COPYUID says (RFC 4315): UIDs pairwise."""

    uidvalidity: int
    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened. From `sync`: `added` and `flagged` apart. From `changes_since`: `flagged` has both, `added` none.

    `expunged_complete` is False if expunges from after that modseq were forgotten: then `expunged` is none of them, and
    all UIDs that are not here are gone.
    """

    modseq: int
    added: tuple[int, ...]
    flagged: tuple[int, ...]
    expunged: tuple[int, ...]
    expunged_complete: bool = True


class Mailbox:
    """Shared view of one mailbox. The arrays are ascending by UID, parallel, and changed only by methods.

    A session may read them between two calls on the account's thread, or take copies. Every method raises
    MailboxMissing once the mailbox was deleted, and OSError where the disk fails.
    """

    def __init__(
        self, folder: Folder, parser: Parser, target: Callable[[str], Folder], check_room: Callable[[int], None]
    ) -> None:
        """`target` opens another mailbox of the account by name; `check_room` raises OverQuota for so many octets."""
        self._folder = folder
        self._parser = parser
        self._target = target
        self._check_room = check_room

    @property
    def folder(self) -> Folder:
        """For this package only."""
        return self._folder

    @property
    def name(self) -> str:
        """The name now; a selected mailbox survives its renaming."""
        return self._folder.row.name

    @property
    def mailboxid(self) -> str:
        """RFC 8474 MAILBOXID."""
        return self._folder.row.mailboxid

    @property
    def special_use(self) -> str:
        r"""RFC 6154: `\Sent` and so on, or ""."""
        return self._folder.row.special_use

    @property
    def uidvalidity(self) -> int:
        """RFC 3501 §2.3.1.1."""
        return self._folder.row.uidvalidity

    @property
    def uidnext(self) -> int:
        """The UID of the next message."""
        return self._folder.row.uidnext

    @property
    def highestmodseq(self) -> int:
        """RFC 7162 §3.1.2.1."""
        return self._folder.row.modseq

    @property
    def uids(self) -> array[int]:
        """'I'."""
        return self._folder.uids

    @property
    def flags(self) -> array[int]:
        """'Q': bits of maildir, keywords from bit 8 on; `flag_text` makes them IMAP."""
        return self._folder.flags

    @property
    def modseqs(self) -> array[int]:
        """'Q'."""
        return self._folder.modseqs

    @property
    def dates(self) -> array[int]:
        """'q': INTERNALDATE, seconds since the epoch."""
        return self._folder.dates

    @property
    def octets(self) -> array[int]:
        """'Q': sizes of the files; RFC822.SIZE is `Parsed.size`."""
        return self._folder.octets

    @property
    def keywords(self) -> tuple[str, ...]:
        r"""Keywords known here, for FLAGS and PERMANENTFLAGS; `\*` may be added: there is room, or it is made."""
        return self._folder.keywords.names()

    def flag_text(self, bits: int) -> bytes:
        r"""`\Seen \Flagged $Junk`; remembered per bit pattern, so a FETCH of 10,000 is a dictionary look-up each."""
        return self._folder.keywords.text(bits)

    def flag_bits(self, names: Sequence[str]) -> int:
        """The bits of known flags; unknown keywords are left out (for SEARCH KEYWORD)."""
        return self._folder.keywords.bits(names)

    def index(self, uid: int) -> int:
        """Position of `uid` in the arrays, -1 if it is not there."""
        return self._folder.index(uid)

    def sync(self, force: bool = False) -> Changes:
        """Look at the Maildir: mail that arrived, what other programs did. Some `fstat` calls if nothing changed.

        New UIDs are durable before this returns. Tells the Notifier.
        """
        seen = look(self._folder, force=force)
        return Changes(seen.modseq, seen.added, seen.flagged, seen.expunged)

    def claim_recent(self) -> int:
        r"""The least UID that is \Recent for a session that selects now; the next one to ask gets later ones only.

        (EXAMINE does not claim; see `recent_from`.) Remembered with the next commit: after a crash mail may be \Recent
        twice, which RFC 3501 §2.3.2 allows.
        """
        row = self._folder.row
        first, row.recent_from = row.recent_from, row.uidnext
        return first

    @property
    def recent_from(self) -> int:
        """The least UID that no session has claimed."""
        return self._folder.row.recent_from

    def changes_since(self, modseq: int) -> Changes:
        """For CHANGEDSINCE and QRESYNC: what changed after `modseq`; messages that came since are among `flagged`."""
        folder = self._folder
        if folder.row.modseq <= modseq:
            return Changes(folder.row.modseq, (), (), ())
        flagged = tuple([uid for uid, own in zip(folder.uids, folder.modseqs, strict=True) if own > modseq])
        complete = modseq >= folder.row.forgotten
        gone = tuple(folder.opened.state.expunged(folder.row.id, modseq)) if complete else ()
        return Changes(folder.row.modseq, (), flagged, gone, complete)

    def expunged_since(self, modseq: int, uids: Iterable[int] | None = None) -> tuple[int, ...]:
        """UIDs expunged after `modseq`, among `uids` if given (QRESYNC's known UIDs).

        RFC 7162 §3.2.7: where that is no longer remembered, all of `uids` that are not here (or all UIDs ever given).
        """
        folder = self._folder
        if modseq >= folder.row.forgotten:
            gone = folder.opened.state.expunged(folder.row.id, modseq)
            if uids is None:
                return tuple(gone)
            asked = set(uids)
            return tuple(uid for uid in gone if uid in asked)
        here = set(folder.uids)
        asked_for = range(1, folder.row.uidnext) if uids is None else sorted(set(uids))
        return tuple(uid for uid in asked_for if uid not in here and uid < folder.row.uidnext)

    def open(self, uid: int) -> Message:
        """The message's octets for FETCH, with CRLF line ends. Raises MessageGone."""
        for _, message in self._open_many([uid]):
            return message
        raise MessageGone(f"UID {uid}")

    def bodies(self, uids: Sequence[int]) -> Iterator[tuple[int, Message]]:
        """`open` for many, with fewer look-ups; gone ones are left out. Each is closed on the next step."""
        for uid, message in self._open_many(uids):
            with message:
                yield uid, message

    def parsed(self, uids: Sequence[int]) -> Iterator[tuple[int, Parsed]]:
        """Ready-made answers from cache.db in the order of `uids`, parsing what is missing; gone ones left out."""
        folder = self._folder
        for start in range(0, len(uids), _PARSED_AT_ONCE):
            some = uids[start : start + _PARSED_AT_ONCE]
            found = dict(folder.opened.cache.get(folder.row.id, some))
            new = self._parse([uid for uid in some if uid not in found]) if len(found) < len(some) else {}
            for uid in some:
                one = found.get(uid) or new.get(uid)
                if one is not None:
                    yield uid, one

    def answers(self, uids: Sequence[int], columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """(UID, columns...) of cache.db ascending by UID, parsing what is missing: `parsed` for thousands at a time.

        `columns`: size, header_size, sent, envelope, bodystructure, body, parts, preview, field_order, and the raw
        header fields as h_from, h_message_id and so on.
        """
        cache, mailbox = self._folder.opened.cache, self._folder.row.id
        for start in range(0, len(uids), _PARSED_AT_ONCE * 5):
            some = uids[start : start + _PARSED_AT_ONCE * 5]
            rows = cache.answers(mailbox, some, columns)
            if len(rows) < len(some):
                have = {row[0] for row in rows}
                if self._parse([uid for uid in some if uid not in have]):
                    rows = cache.answers(mailbox, some, columns)
            yield from rows

    def save_dates(self, uids: Sequence[int]) -> dict[int, int]:
        """When each came into this mailbox (RFC 8514), seconds since the epoch."""
        return {one.uid: one.saved for one in self._folder.opened.state.details(self._folder.row.id, uids)}

    def email_ids(self, uids: Sequence[int]) -> dict[int, str]:
        """EMAILID of each (RFC 8474); copies have the one of their original."""
        details = self._folder.opened.state.details(self._folder.row.id, uids)
        return {one.uid: one.emailid or email_id(one.file) for one in details}

    def store(
        self,
        uids: Sequence[int],
        mode: StoreMode,
        flags: Sequence[str],
        *,
        unchanged_since: int | None = None,
        origin: object = None,
    ) -> Stored:
        r"""STORE. `flags` as IMAP names (\Seen, $Junk); \Recent is ignored. Raises LimitReached, BadName (keywords).

        `changed` has the UIDs whose flags are other than before. Survives a crash of the process; a power cut may undo
        the last second (see `AccountStore.settle`).
        """
        return Stored(*store(self._folder, uids, mode, flags, unchanged_since, origin))

    def copy(self, uids: Sequence[int], target: str, *, origin: object = None) -> Copied:
        """COPY with flags and INTERNALDATE, all or none, durable. Raises MailboxMissing, OverQuota, MessageGone."""
        other = self._target(target)
        positions = [at for uid in set(uids) if (at := self._folder.index(uid)) >= 0]
        self._check_room(sum(self._folder.octets[at] for at in positions))
        source, there = copy(self._folder, other, uids, origin)
        return Copied(other.row.uidvalidity, source, there)

    def move(self, uids: Sequence[int], target: str, *, origin: object = None) -> Copied:
        """MOVE (RFC 6851): each message is in exactly one of the two at any moment; UIDs here are expunged."""
        other = self._target(target)
        source, there = move(self._folder, other, uids, origin)
        return Copied(other.row.uidvalidity, source, there)

    def expunge(self, uids: Sequence[int] | None = None, *, origin: object = None) -> tuple[int, ...]:
        r"""EXPUNGE of messages with \Deleted, or UID EXPUNGE of those among `uids`; the UIDs stay known as expunged."""
        folder = self._folder
        deleted = [uid for uid, bits in zip(folder.uids, folder.flags, strict=True) if bits & DELETED]
        if uids is not None:
            asked = set(uids)
            deleted = [uid for uid in deleted if uid in asked]
        return expunge(folder, deleted, origin)

    def remove(self, uids: Sequence[int], *, origin: object = None) -> tuple[int, ...]:
        """Expunge whether or not flagged: POP3's DELE at QUIT."""
        return expunge(self._folder, uids, origin)

    def _open_many(self, uids: Sequence[int]) -> Iterator[tuple[int, Message]]:
        """In the order of `uids`; looks at the Maildir once more where a file is not where it was."""
        folder = self._folder
        folder.check()
        for start in range(0, len(uids), _PARSED_AT_ONCE):
            some = uids[start : start + _PARSED_AT_ONCE]
            files = folder.opened.state.files(folder.row.id, some)
            for uid in some:
                file = files.get(uid)
                if file is None:
                    continue
                try:
                    message = self._message(file)
                except FileNotFoundError:
                    look(folder, force=True)
                    files = folder.opened.state.files(folder.row.id, some)
                    try:
                        message = self._message(files[uid])
                    except (KeyError, FileNotFoundError):
                        continue
                yield uid, message

    def _message(self, file: str) -> Message:
        folder = self._folder
        descriptor = open_message(file, folder.cur)
        try:
            octets = os.fstat(descriptor).st_size
            return Message(descriptor, virtual=virtual_size(file, octets), codec=folder.opened.codec)
        except BaseException:
            os.close(descriptor)
            raise

    def _parse(self, uids: Sequence[int]) -> dict[int, Parsed]:
        parsed = {uid: self._parse_one(message) for uid, message in self.bodies(uids)}
        self._folder.opened.cache.put(self._folder.row.id, parsed.items())
        return parsed

    def _parse_one(self, message: Message) -> Parsed:
        if message.raw_size <= _IN_MEMORY:
            return self._parser.parse(message.raw())
        # A private copy and not the file itself: whoever could truncate a mapped file would kill this process (SIGBUS).
        # It is made once in a message's life, and its pages are the kernel's to take back.
        scratch = unnamed_file(self._folder.opened.scratch)
        try:
            _copy_raw(message, scratch)
            with mmap.mmap(scratch, 0, access=mmap.ACCESS_READ) as octets:
                return self._parser.parse(octets)
        finally:
            os.close(scratch)


def _copy_raw(message: Message, target: int) -> None:
    source = message.plain_file()
    if source >= 0:
        copy_octets(source, target, message.raw_size)
        return
    for offset in range(0, message.raw_size, _IN_MEMORY):
        os.write(target, message.raw(offset, _IN_MEMORY))


__all__ = ["Changes", "Copied", "Mailbox", "Octets", "StoreMode", "Stored"]
