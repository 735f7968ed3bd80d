"""Mailbox names and the folders they are: `Archive.2026` ↔ `.Archive.2026`, Unicode ↔ modified UTF-7.

Called by account and by delivery. Maildir++ as Dovecot writes it: all folders lie beside each other in the Maildir,
"." stands between levels, INBOX is the Maildir itself. Pure; raises BadName.
"""

from __future__ import annotations

import re

from services.protocol.imap_names import decode_name, encode_name
from services.protocol.imap_syntax import BadSyntax
from services.storage.errors import BadName

SEPARATOR = "."
INBOX = "INBOX"
# Dovecot's own limit; deeper ones are mistakes of a client with another separator, or an attack on recursion.
MOST_LEVELS = 16
_LONGEST = 255  # NAME_MAX
# A slash would leave the folder; RFC 9051 §5.1 and RFC 5198 forbid C0, C1, U+2028 and U+2029; half characters are none.
_FORBIDDEN = re.compile("[/\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def canonical(name: str) -> str:
    """The one spelling of a mailbox name. Raises BadName.

    RFC 3501 §5.1: INBOX in any case. RFC 5198 §3 (by RFC 9051 §5.1): Unicode in NFC, so that one name typed on two
    systems is one mailbox.
    """
    if not name.isascii():
        name = _normal(name)
    parts = name.split(SEPARATOR)
    if parts[0].upper() == INBOX:
        parts[0] = INBOX
    if len(parts) > MOST_LEVELS:
        raise BadName("a mailbox name with too many levels")
    for part in parts:
        if not part:
            raise BadName("a mailbox name with an empty level")
        if _FORBIDDEN.search(part):
            raise BadName("a mailbox name with a slash or a control character")
    name = SEPARATOR.join(parts)
    if len(to_folder(name)) > _LONGEST:
        raise BadName("a mailbox name that is too long")
    return name


def _normal(name: str) -> str:
    import unicodedata  # a MiB; only names outside ASCII need it

    return unicodedata.normalize("NFC", name)


def parents(name: str) -> list[str]:
    """`A.B.C` → ["A", "A.B"]."""
    parts = name.split(SEPARATOR)
    return [SEPARATOR.join(parts[:depth]) for depth in range(1, len(parts))]


def to_folder(name: str) -> str:
    """The folder of a mailbox below the Maildir; "" for INBOX itself."""
    return "" if name == INBOX else "." + encode_name(name).decode("ascii")


def from_folder(folder: str) -> str | None:
    """The mailbox that a folder's name stands for; None for what is no mailbox.

    UTF-8, which some servers write, is read too; what is neither is shown by its own name: hidden mail is lost mail.
    """
    if len(folder) < 2 or folder[0] != "." or folder[1] == ".":
        return None
    try:
        raw = folder[1:].encode("utf-8")
    except UnicodeEncodeError:  # octets that are no text at all
        return None
    try:
        name = decode_name(raw)
    except BadSyntax:
        name = folder[1:]
    try:
        return name if canonical(name) == name != INBOX else None
    except BadName:
        return None
