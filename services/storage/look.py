"""A look at the Maildir: what arrived, and what other programs did to it, becomes UIDs, flags and expunges.

Called by mailbox (`sync`) and by whatever finds a file gone. The Maildir is right about which messages there are and
about the flags that letters can say; state.db is right about UIDs and the rest. A message is its base name: under
whatever flags, in new/ or in cur/, it keeps its UID.

    new/<base>                  a rename to cur/ gives it its place, then a durable commit its UID; then it is shown.
                                A crash between: it lies in cur/ without a UID and is found there, below.
    cur/<base>, not in state    dropped there by another program, or by that crash: gets a UID
    cur/<base>, other letters   another program changed flags
    in state, nowhere on disk   expunged by another program. Believed after two listings only: a listing may miss a file
                                that is renamed while it runs, and a UID once expunged never comes back.
    in state, but in new/       a power cut undid our rename: it goes to cur/ again, same UID, same flags
    doomed                      we expunged it and a power cut undid the removal: it goes again
    the same base twice         a copying program's doing: the second gets a name of its own, or goes if it is the same
                                inode. Nothing is ever renamed over another file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.storage import keywords
from services.storage.edit import Edit
from services.storage.errors import BadName, LimitReached
from services.storage.folder import Folder
from services.storage.maildir import (
    LETTER_BITS,
    arrival_key,
    bits_of,
    foreign,
    join,
    keywords_in,
    letters_of,
    scan,
    split,
)

_LAST_DATE = 253_402_300_799  # the end of the year 9999: IMAP's dates have four digits
_LISTINGS = 4


@dataclass(frozen=True, slots=True)
class Looked:
    """UIDs, ascending."""

    modseq: int
    added: tuple[int, ...] = ()
    flagged: tuple[int, ...] = ()
    expunged: tuple[int, ...] = ()


@dataclass(slots=True)
class _Found:
    """What a look has found so far."""

    arrived: list[tuple[tuple[int, int, str], str, os.stat_result]] = field(default_factory=list)
    flagged: list[tuple[int, str, int]] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    bases: dict[str, str] | None = None  # base names in cur/ and the files that have them, if it was listed


def look(folder: Folder, *, force: bool = False) -> Looked:
    """Bring state.db and the columns to what is on the disk; durable where UIDs are given. Raises MailboxMissing."""
    folder.check()
    list_cur = force or folder.cur_seen.is_other(patient=True)
    if not list_cur and not folder.new_seen.is_other(patient=False):
        return Looked(folder.row.modseq)
    found = _Found()
    if list_cur:
        _learn_keywords(folder)
    new_before, new_started = folder.new_seen.now(), time.time_ns()
    in_new = scan(folder.new)
    with folder.cur_seen.changing(), folder.new_seen.changing():
        if list_cur:
            _compare(folder, in_new, found)
        if in_new:
            _take_in(folder, in_new, found)
    if in_new or found.flagged or found.gone:
        folder.unsynced = True  # what another program renamed may not be on the disk any more than what we did
    if in_new:
        folder.new_seen.forget()  # more may have come while we moved these: cheap to list, as it is nearly empty now
    else:
        folder.new_seen.listed(new_before, new_started)
    return _commit(folder, found)


def _commit(folder: Folder, found: _Found) -> Looked:
    last = folder.row.uidnext
    edit = Edit(durable=bool(found.arrived or found.gone))
    for uid, file, bits in found.flagged:
        edit.flag(folder, uid, file, bits)
    if found.gone:
        edit.remove(folder, found.gone)
    letters = folder.keywords.letters
    for _, file, status in sorted(found.arrived):
        date = min(max(int(status.st_mtime), 0), _LAST_DATE)
        # Of the keywords that a rule gave it (see `_take_in`), those beyond the letters.
        more = folder.keywords.bits(keywords_in(file)) & ~LETTER_BITS
        edit.add(folder, file, bits_of(split(file)[1], letters) | more, date, status.st_size)
    flagged = [uid for uid, _, bits in found.flagged if bits != folder.flags[folder.index(uid)]]
    try:
        edit.commit()
    except BaseException:
        folder.cur_seen.forget()  # what was found is found again
        folder.new_seen.forget()
        raise
    row = folder.row
    return Looked(row.modseq, tuple(range(last, row.uidnext)), tuple(sorted(flagged)), tuple(sorted(found.gone)))


def _learn_keywords(folder: Folder) -> None:
    root = folder.open_root()
    try:
        changed = keywords.file_time(root)
        if changed == folder.keywords_time:
            return
        folder.keywords_time = changed
        said = keywords.load(root)
    finally:
        os.close(root)
    known = folder.keywords.by_number()
    if other := {number: name for number, name in said.items() if known.get(number) != name}:
        edit = Edit(durable=False)
        edit.keywords(folder, other)
        edit.commit()


def _compare(folder: Folder, in_new: set[str], found: _Found) -> None:
    """All names in cur/ against state.db. Names in `in_new` that are dealt with here are taken out of it."""
    known = {file: uid for uid, file in folder.opened.state.files(folder.row.id).items()}
    missed: set[str] | None = None
    for _ in range(_LISTINGS):
        before, started = folder.cur_seen.now(), time.time_ns()
        on_disk = scan(folder.cur)
        fresh = on_disk - known.keys()
        missing = {split(file)[0]: file for file in known.keys() - on_disk}
        renamed = {base: name for name in sorted(fresh) if (base := split(name)[0]) in missing}
        in_new_again = {base: name for name in in_new if (base := split(name)[0]) in missing and base not in renamed}
        gone = missing.keys() - renamed.keys() - in_new_again.keys()
        if not gone or gone == missed:
            folder.cur_seen.listed(before, started)
            break
        missed = set(gone)
        in_new |= scan(folder.new)
    else:
        gone = set()  # somebody is renaming all the time: nothing is called gone on such evidence, and we look again
        folder.cur_seen.forget()
    letters = folder.keywords.letters
    letter_bits = LETTER_BITS & ~_unnamed(letters)
    for base, name in renamed.items():
        uid = known[missing[base]]
        bits = folder.flags[folder.index(uid)]
        found.flagged.append((uid, name, bits & ~letter_bits | bits_of(split(name)[1], letters)))
    for base, name in in_new_again.items():
        with contextlib.suppress(FileNotFoundError):
            os.rename(name, missing[base], src_dir_fd=folder.new, dst_dir_fd=folder.cur)
        in_new.discard(name)
    found.gone.extend(sorted(known[missing[base]] for base in gone))
    strangers = fresh - set(renamed.values())
    if strangers or in_new:
        found.bases = {split(name)[0]: name for name in on_disk - strangers}
        _take_strangers(folder, strangers, found)


def name_keywords(folder: Folder, names: Sequence[str]) -> None:
    """Give numbers to keywords that are new here. Raises LimitReached, BadName."""
    missing = folder.keywords.missing(names)
    if not missing:
        return
    given = folder.keywords.assign(missing, folder.used_bits())
    root = folder.open_root()
    try:
        keywords.save(root, {**folder.keywords.by_number(), **given})
        folder.keywords_time = keywords.file_time(root)
    finally:
        os.close(root)
    edit = Edit(durable=False)
    edit.keywords(folder, given)
    edit.commit()


def _unnamed(letters: int) -> int:
    """Bits of keywords without a letter's name: file names say nothing about them."""
    return (((1 << 26) - 1) & ~letters) << 8


def _take_strangers(folder: Folder, names: Iterable[str], found: _Found) -> None:
    """Files in cur/ that state.db does not know."""
    assert found.bases is not None
    doomed = folder.opened.state.doomed(folder.row.id)
    for name in sorted(names):
        base = split(name)[0]
        if base in doomed:
            _unlink(folder, folder.cur, name)
        elif base in found.bases:
            _separate(folder, name, found.bases[base], found)
        else:
            _arrive(folder, folder.cur, name, name if _storable(name) else None, found)


def _take_in(folder: Folder, names: Iterable[str], found: _Found) -> None:
    """Files in new/, into cur/."""
    doomed = folder.opened.state.doomed(folder.row.id)
    # Keywords that rules gave, by name (see `maildir.with_flags`), get their letters here.
    words = sorted({word for name in names for word in keywords_in(name)})
    for word in words:
        with contextlib.suppress(LimitReached, BadName):  # 55 others are there, or it is none: the message counts
            name_keywords(folder, [word])
    for name in names:
        base, letters = split(name)
        if base in doomed:
            _unlink(folder, folder.new, name)
            continue
        if words and (given := folder.keywords.bits(keywords_in(name)) & LETTER_BITS):
            known = folder.keywords.letters
            letters = letters_of(bits_of(letters, known) | given, foreign(letters, known))
        target = join(base, letters)
        taken = base in found.bases if found.bases is not None else _is_there(folder.cur, target)
        _arrive(folder, folder.new, name, target if _storable(target) and not taken else None, found)


def _arrive(folder: Folder, where: int, name: str, target: str | None, found: _Found) -> None:
    """Put a file into its place in cur/ (it may be there) and note it; one that is gone again is nobody's.

    `target` None: it needs a name of ours.
    """
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=where, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return
        if target is None:
            target = _own_name(folder, name, status.st_size)
        if where != folder.cur or name != target:
            try:
                os.rename(name, target, src_dir_fd=where, dst_dir_fd=folder.cur)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                target = _own_name(folder, name, status.st_size)
                os.rename(name, target, src_dir_fd=where, dst_dir_fd=folder.cur)
        key = arrival_key(target)
        if not key[0]:
            key = (int(status.st_mtime), 0, target)  # a name without a time in it
        found.arrived.append((key, target, status))
        if found.bases is not None:
            found.bases[split(target)[0]] = target


def _separate(folder: Folder, name: str, other: str, found: _Found) -> None:
    """A second file with a known base: the same inode once more goes, another message gets a name of its own."""
    with contextlib.suppress(FileNotFoundError):
        this = os.stat(name, dir_fd=folder.cur, follow_symlinks=False)
        if os.path.samestat(this, os.stat(other, dir_fd=folder.cur, follow_symlinks=False)):
            _unlink(folder, folder.cur, name)
        else:
            _arrive(folder, folder.cur, name, None, found)


def _own_name(folder: Folder, name: str, octets: int) -> str:
    """A name of ours for a file that cannot keep its own, with its letters."""
    letters = "".join(letter for letter in split(name)[1] if letter.isascii() and letter.isalpha())
    return join(folder.opened.names.next(octets), letters[:64])


def _storable(name: str) -> bool:
    """False for names that are no text; SQLite holds text."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_there(where: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=where, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError:  # a name that is too long is taken care of when it is used
        return False
    return True


def _unlink(folder: Folder, where: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=where)
    folder.unsynced = folder.doomed = True
