"""Mailbox names and the folders they are: `Archive.2026` ↔ `.Archive.2026`, Unicode ↔ modified UTF-7.

Called by account and by delivery. Maildir++ as Dovecot writes it: all folders lie beside each other in the Maildir,
"." stands between levels, INBOX is the Maildir itself. Pure; raises BadName.
"""

from __future__ import annotations

import base64
import binascii
import re

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
    return "" if name == INBOX else "." + encode_utf7(name)


def from_folder(folder: str) -> str | None:
    """The mailbox that a folder's name stands for; None for what is no mailbox.

    A folder that is not modified UTF-7 (some servers write UTF-8) is shown by its own name: hidden mail is lost mail.
    """
    if len(folder) < 2 or folder[0] != "." or folder[1] == ".":
        return None
    try:
        name = decode_utf7(folder[1:])
        if canonical(name) == name and name != INBOX and to_folder(name) == folder:
            return name
    except BadName:
        pass
    try:
        return folder[1:] if canonical(folder[1:]) == folder[1:] != INBOX else None
    except BadName:
        return None


def encode_utf7(text: str) -> str:
    """RFC 3501 §5.1.3: printable ASCII as it is, & as &-, all else as &<base64 of UTF-16BE>-."""
    out: list[str] = []
    run: list[str] = []

    def end_run() -> None:
        if run:
            coded = base64.b64encode("".join(run).encode("utf-16-be", "surrogatepass")).decode("ascii")
            out.append(f"&{coded.rstrip('=').replace('/', ',')}-")
            run.clear()

    for letter in text:
        if " " <= letter <= "~":
            end_run()
            out.append("&-" if letter == "&" else letter)
        else:
            run.append(letter)
    end_run()
    return "".join(out)


def decode_utf7(text: str) -> str:
    """The other way; raises BadName for what `encode_utf7` would not have written."""
    out: list[str] = []
    position = 0
    while (start := text.find("&", position)) >= 0:
        end = text.find("-", start)
        if end < 0:
            raise BadName("modified UTF-7 that does not end")
        out.append(text[position:start])
        coded = text[start + 1 : end]
        if coded:
            try:
                raw = base64.b64decode(coded.replace(",", "/") + "=" * (-len(coded) % 4), validate=True)
                out.append(raw.decode("utf-16-be"))
            except (binascii.Error, ValueError):
                raise BadName("modified UTF-7 that is none") from None
        else:
            out.append("&")
        position = end + 1
    out.append(text[position:])
    name = "".join(out)
    if encode_utf7(name) != text:  # RFC 3501 §5.1.3: superfluous shifts are forbidden, one name has one form
        raise BadName("modified UTF-7 in a form that nobody should write")
    return name
