"""Mailbox names on the wire: modified UTF-7 (RFC 3501 §5.1.3) and LIST's patterns (§6.3.8). Pure."""

from __future__ import annotations

import base64
import binascii
import re

from services.protocol.imap_syntax import BadMailboxName

# Modified base64 of UTF-16BE: "," for "/", no padding.
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
_OUTSIDE = re.compile(r"[^\x20-\x7e]+")
# A name that is longer can be no folder's: each level is a part of one file name of 255 octets.
MAX_NAME = 1000


def decode_name(wire: bytes) -> str:
    """A mailbox name as text; INBOX in any case is `INBOX`.

    Raises BadMailboxName where it is neither modified UTF-7 nor UTF-8: a name that could be read in two ways would
    make two mailboxes that look alike. UTF-8 is RFC 6855's and RFC 9051's form, and what some clients send unasked.
    """
    if len(wire) > MAX_NAME:
        raise BadMailboxName("the mailbox name is too long")
    if wire.upper() == b"INBOX":
        return "INBOX"
    try:
        text = wire.decode("ascii")
    except UnicodeDecodeError:
        try:
            return wire.decode("utf-8")
        except UnicodeDecodeError:
            raise BadMailboxName("the mailbox name is neither modified UTF-7 nor UTF-8") from None
    if "&" not in text:
        return text
    name = _SHIFTED.sub(_unshift, text)
    # The one way to write a name is the way we write it: `&AGE-` for "a" is refused (§5.1.3: must not be used).
    if encode_name(name) != wire:
        raise BadMailboxName("the mailbox name is not modified UTF-7")
    return name


def _unshift(match: re.Match[str]) -> str:
    shifted = match.group(1)
    if not shifted:
        return "&"
    padded = shifted.replace(",", "/") + "=" * (-len(shifted) % 4)
    try:
        return base64.b64decode(padded, validate=True).decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError):
        raise BadMailboxName("the mailbox name is not modified UTF-7") from None


def encode_name(name: str) -> bytes:
    """A mailbox name in modified UTF-7."""
    if name.isascii() and name.isprintable() and "&" not in name:
        return name.encode("ascii")
    return _OUTSIDE.sub(_shift, name.replace("&", "&-")).encode("ascii")


def _shift(match: re.Match[str]) -> str:
    encoded = base64.b64encode(match.group().encode("utf-16-be", "surrogatepass"))
    return "&" + encoded.decode("ascii").rstrip("=").replace("/", ",") + "-"


def list_pattern(reference: str, pattern: str, separator: str) -> re.Pattern[str]:
    """§6.3.8: `reference` and `pattern` together as one expression for whole names: "*" is anything, "%" anything
    within one level. INBOX is matched in any case where the pattern's first level can be it."""
    whole = reference + pattern
    # Runs of wildcards mean no more than one does, and nested repetition is where expressions become slow.
    whole = re.sub(r"%+", "%", re.sub(r"[*%]*\*[*%]*", "*", whole))
    if whole.upper() == "INBOX" or whole.upper().startswith("INBOX" + separator):
        whole = "INBOX" + whole[5:]
    out = []
    for character in whole:
        if character == "*":
            out.append(".*")
        elif character == "%":
            out.append(f"[^{re.escape(separator)}]*")
        else:
            out.append(re.escape(character))
    return re.compile("".join(out), re.S)
