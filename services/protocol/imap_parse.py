"""Parses IMAP commands (RFC 3501 §6 and §9): a command's octets in, one value of `imap_commands` out.

Called by the imap room's session. What is announced in CAPABILITY is understood here, nothing else: an argument of an
extension that we do not have is a syntax error, as it would be to a server of 2003. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from services.protocol.imap_commands import (
    Append,
    Authenticate,
    BadCommand,
    ClientId,
    Command,
    Enable,
    Expunge,
    Fetch,
    ListMailboxes,
    Login,
    OnMailbox,
    Rename,
    Search,
    Select,
    Simple,
    StatusOf,
    Store,
    Tagged,
    Transfer,
)
from services.protocol.imap_fetch import FetchItems, fetch_items
from services.protocol.imap_names import decode_name
from services.protocol.imap_search import CHARSETS, BadCharset, charset_name, search_program
from services.protocol.imap_sets import sequence_set
from services.protocol.imap_syntax import BadMailboxName, BadSyntax, Scanner

MAX_PATTERN = 1000
MAX_PATTERNS = 100
# RFC 2971 §3.3: at most 30 pairs, fields of 30 octets, values of 1024.
MAX_ID_PAIRS = 30

STATUS_ITEMS = (b"MESSAGES", b"RECENT", b"UIDNEXT", b"UIDVALIDITY", b"UNSEEN")


def parse(octets: bytes) -> Tagged:
    """One command. Raises BadCommand."""
    scanner, tag, name = _head(octets)
    reader = _READERS.get(name)
    if reader is None:
        # The name is echoed only where it is one; what a stranger sent is not repeated otherwise.
        raise BadCommand(tag, f"there is no command {name.decode('ascii')}" if name.isalpha() else "not a command")
    try:
        command = reader(scanner)
        scanner.end()
    except BadMailboxName as error:
        raise BadCommand(tag, str(error), name.decode("ascii"), b"CANNOT") from None
    except BadSyntax as error:
        raise BadCommand(tag, str(error), name.decode("ascii")) from None
    except BadCharset:
        code = b"BADCHARSET (%s)" % b" ".join(CHARSETS)  # §6.4.4, with §7.1's list of what we do know
        raise BadCommand(tag, "this charset is not known here", name.decode("ascii"), code) from None
    return Tagged(tag, name.decode("ascii"), command)


def _head(octets: bytes) -> tuple[Scanner, bytes, bytes]:
    scanner = Scanner(octets)
    try:
        tag = scanner.tag()
    except BadSyntax:
        raise BadCommand(b"*", "a command begins with a tag") from None
    try:
        scanner.space()
        name = scanner.word("a command")
        if name == b"UID":
            scanner.space()
            name += b" " + scanner.word("a command after UID")
    except BadSyntax as error:
        raise BadCommand(tag, str(error)) from None
    return scanner, tag, name


def tag_and_name(octets: bytes) -> tuple[bytes, str]:
    """Tag and name of a command that is still arriving. Raises BadCommand."""
    _, tag, name = _head(octets)
    return tag, name.decode("ascii")


def parse_append(octets: bytes) -> tuple[Append, bool]:
    """APPEND's arguments up to where a literal was announced; whether that literal is the message.

    False: it is the mailbox's name, to be taken as any literal. Raises BadCommand.
    """
    scanner, tag, name = _head(octets)
    try:
        scanner.space()
        if scanner.at_end:
            return Append("", (), None), False
        mailbox = _mailbox(scanner)
        scanner.space()
        flags: tuple[str, ...] = ()
        when: float | None = None
        if scanner.peek(b"("):
            flags = scanner.flag_list()
            scanner.space()
        if scanner.peek(b'"'):
            when = scanner.date_time()
            scanner.space()
        if scanner.position < len(octets):
            raise BadSyntax("expected flags, a date, or the message as a literal")
    except BadMailboxName as error:
        raise BadCommand(tag, str(error), name.decode("ascii"), b"CANNOT") from None
    except BadSyntax as error:
        raise BadCommand(tag, str(error), name.decode("ascii")) from None
    return Append(mailbox, flags, when), True


# --- a reader per command, in RFC 3501's order


def _mailbox(scanner: Scanner) -> str:
    return decode_name(scanner.astring("a mailbox name"))


def _simple(name: str) -> Callable[[Scanner], Command]:
    return lambda scanner: Simple(name)


def _id(scanner: Scanner) -> Command:
    scanner.space()
    if not scanner.peek(b"("):
        if scanner.word("a list or NIL") != b"NIL":
            raise BadSyntax("expected a list or NIL")
        return ClientId(())

    def pair() -> tuple[bytes, bytes | None]:
        name = scanner.string("a field")
        scanner.space()
        return name, scanner.nstring("a value")

    pairs = scanner.listed(pair, "fields", empty=True)
    if len(pairs) > MAX_ID_PAIRS:
        raise BadSyntax("too many fields")
    return ClientId(tuple(pairs))


def _authenticate(scanner: Scanner) -> Command:
    scanner.space()
    mechanism = scanner.word("a mechanism").decode("ascii")
    if scanner.at_end:
        return Authenticate(mechanism, None)
    scanner.space()
    initial = scanner.data[scanner.position :].strip(b" ")
    scanner.position = len(scanner.data)
    # RFC 4959 §3: "=" is an initial response of no octets.
    return Authenticate(mechanism, b"" if initial == b"=" else initial)


def _login(scanner: Scanner) -> Command:
    scanner.space()
    user = scanner.astring("a user name")
    scanner.space()
    return Login(user, scanner.astring("a password"))


def _enable(scanner: Scanner) -> Command:
    names: list[bytes] = []
    while not names or not scanner.at_end:
        scanner.space()
        names.append(scanner.word("a capability"))
    return Enable(tuple(names))


def _select(read_only: bool) -> Callable[[Scanner], Command]:
    def read(scanner: Scanner) -> Command:
        scanner.space()
        return Select(_mailbox(scanner), read_only)

    return read


def _on_mailbox(name: str) -> Callable[[Scanner], Command]:
    def read(scanner: Scanner) -> Command:
        scanner.space()
        return OnMailbox(name, _mailbox(scanner))

    return read


def _rename(scanner: Scanner) -> Command:
    scanner.space()
    old = _mailbox(scanner)
    scanner.space()
    return Rename(old, _mailbox(scanner))


def _pattern(scanner: Scanner) -> str:
    text = scanner.list_mailbox()
    if len(text) > MAX_PATTERN:
        raise BadSyntax("the pattern is too long")
    # Wildcards are no part of modified UTF-7, so what stands between them is decoded by itself.
    return "".join(
        piece.decode("ascii") if piece in (b"*", b"%") else decode_name(piece) for piece in _split_wildcards(text)
    )


def _split_wildcards(text: bytes) -> list[bytes]:
    pieces = text.replace(b"*", b"\0*\0").replace(b"%", b"\0%\0").split(b"\0")
    return [piece for piece in pieces if piece]


def _list(scanner: Scanner) -> Command:
    only_special = False
    scanner.space()
    if scanner.peek(b"("):
        # RFC 6154 §3: the one selection option that SPECIAL-USE brings.
        for option in scanner.listed(lambda: scanner.word("a selection option"), "selection options", empty=True):
            if option != b"SPECIAL-USE":
                raise BadSyntax(f"there is no selection option {option.decode('ascii')}")
            only_special = True
        scanner.space()
    reference = _pattern(scanner) if not scanner.accept(b'""') else ""
    scanner.space()
    if scanner.peek(b"("):
        patterns = scanner.listed(lambda: _pattern(scanner), "patterns")
    else:
        patterns = [_pattern(scanner)]
    if len(patterns) > MAX_PATTERNS:
        raise BadSyntax("too many patterns")
    if not scanner.at_end:
        scanner.space()
        if scanner.word("RETURN") != b"RETURN":
            raise BadSyntax("expected RETURN")
        scanner.space()
        for option in scanner.listed(lambda: scanner.word("a return option"), "return options", empty=True):
            # Both are in every answer anyway (RFC 3348, RFC 6154 §2).
            if option not in (b"SPECIAL-USE", b"CHILDREN"):
                raise BadSyntax(f"there is no return option {option.decode('ascii')}")
    return ListMailboxes(reference, tuple(patterns), only_special=only_special)


def _lsub(scanner: Scanner) -> Command:
    scanner.space()
    reference = _pattern(scanner) if not scanner.accept(b'""') else ""
    scanner.space()
    return ListMailboxes(reference, (_pattern(scanner),), subscribed=True)


def _status(scanner: Scanner) -> Command:
    scanner.space()
    mailbox = _mailbox(scanner)
    scanner.space()
    items = scanner.listed(lambda: scanner.word("a status item"), "status items")
    for item in items:
        if item not in STATUS_ITEMS:
            raise BadSyntax(f"there is no status item {item.decode('ascii')}")
    return StatusOf(mailbox, tuple(dict.fromkeys(items)))


def _append(scanner: Scanner) -> Command:
    # The message's literal is streamed and never part of a command; this one has none.
    raise BadSyntax("APPEND needs the message as a literal")


def _uid_expunge(scanner: Scanner) -> Command:
    scanner.space()
    return Expunge(sequence_set(scanner))


def _search(uid: bool) -> Callable[[Scanner], Command]:
    def read(scanner: Scanner) -> Command:
        scanner.space()
        charset = "utf-8"
        start = scanner.position
        if scanner.data[start : start + 8].upper() == b"CHARSET ":
            scanner.position += 8
            charset = charset_name(scanner.astring("a charset"))
            scanner.space()
        return Search(search_program(scanner, charset), uid)

    return read


def _fetch(uid: bool) -> Callable[[Scanner], Command]:
    def read(scanner: Scanner) -> Command:
        scanner.space()
        numbers = sequence_set(scanner)
        scanner.space()
        items = fetch_items(scanner)
        if uid and b"UID" not in items.items:
            # §6.4.8: the UID is in every answer to UID FETCH, asked for or not.
            items = FetchItems((b"UID", *items.items))
        return Fetch(numbers, items, uid)

    return read


_STORE_MODES: dict[bytes, tuple[Literal["+", "-", "="], bool]] = {
    b"FLAGS": ("=", False),
    b"FLAGS.SILENT": ("=", True),
    b"+FLAGS": ("+", False),
    b"+FLAGS.SILENT": ("+", True),
    b"-FLAGS": ("-", False),
    b"-FLAGS.SILENT": ("-", True),
}


def _store(uid: bool) -> Callable[[Scanner], Command]:
    def read(scanner: Scanner) -> Command:
        scanner.space()
        numbers = sequence_set(scanner)
        scanner.space()
        mode = _STORE_MODES.get(scanner.word("FLAGS, +FLAGS or -FLAGS"))
        if mode is None:
            raise BadSyntax("expected FLAGS, +FLAGS or -FLAGS")
        scanner.space()
        if scanner.peek(b"("):
            flags = scanner.flag_list()
        else:
            found = [scanner.flag()]
            while not scanner.at_end:
                scanner.space()
                found.append(scanner.flag())
            flags = tuple(dict.fromkeys(found))
        return Store(numbers, mode[0], mode[1], flags, uid)

    return read


def _transfer(move: bool, uid: bool) -> Callable[[Scanner], Command]:
    def read(scanner: Scanner) -> Command:
        scanner.space()
        numbers = sequence_set(scanner)
        scanner.space()
        return Transfer(numbers, _mailbox(scanner), move, uid)

    return read


_READERS: dict[bytes, Callable[[Scanner], Command]] = {
    **{
        name.encode("ascii"): _simple(name)
        for name in (
            "CAPABILITY", "NOOP", "LOGOUT", "STARTTLS", "NAMESPACE", "IDLE", "CHECK", "CLOSE", "UNSELECT"
        )
    },
    b"ID": _id,
    b"AUTHENTICATE": _authenticate,
    b"LOGIN": _login,
    b"ENABLE": _enable,
    b"SELECT": _select(False),
    b"EXAMINE": _select(True),
    b"CREATE": _on_mailbox("CREATE"),
    b"DELETE": _on_mailbox("DELETE"),
    b"RENAME": _rename,
    b"SUBSCRIBE": _on_mailbox("SUBSCRIBE"),
    b"UNSUBSCRIBE": _on_mailbox("UNSUBSCRIBE"),
    b"LIST": _list,
    b"LSUB": _lsub,
    b"STATUS": _status,
    b"APPEND": _append,
    b"EXPUNGE": lambda scanner: Expunge(),
    b"UID EXPUNGE": _uid_expunge,
    b"SEARCH": _search(False),
    b"UID SEARCH": _search(True),
    b"FETCH": _fetch(False),
    b"UID FETCH": _fetch(True),
    b"STORE": _store(False),
    b"UID STORE": _store(True),
    b"COPY": _transfer(move=False, uid=False),
    b"UID COPY": _transfer(move=False, uid=True),
    b"MOVE": _transfer(move=True, uid=False),
    b"UID MOVE": _transfer(move=True, uid=True),
}  # fmt: skip
