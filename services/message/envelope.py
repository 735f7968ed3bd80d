"""Makes the answers to FETCH ENVELOPE, BODY, BODYSTRUCTURE and BODY[HEADER.FIELDS] (RFC 3501 §7.4.2, §6.4.5).

Called by the imap room's index when a message is first seen; the bytes are kept and sent as they are from then on.
Pure: takes what `mime.parse` found. Never raises, never decodes what a client decodes itself (RFC 2047 words).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from services.message.addresses import Address, addresses
from services.message.media_types import disposition, language_tags, mime_token
from services.message.mime import ADDRESS_FIELDS, MESSAGE, MULTIPART, REPEATED, Fields, Part
from services.protocol.imap_responses import literal, nstring, string

_BLANKS = re.compile(rb"[ \t\r\n]+")
_FOLD = re.compile(rb"\r?\n")
_DEFAULT_PARAMETERS = b'("charset" "us-ascii")'
# RFC 3501's grammar has no multipart without parts: one that came without is shown with an empty one.
_NO_PART = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0'

# A line without a colon counts as a field whose name is all of it: HEADER.FIELDS.NOT must not lose it.
_FIELD_WITH_NAME = re.compile(rb"^([^:\r\n]*?)[ \t]*(?::[^\n]*|\r?)(?:\n[ \t][^\n]*)*(?:\n|\Z)", re.M)


def _one_line(value: bytes) -> bytes:
    """Unfolded (RFC 5322 §2.2.3): the line break goes, the blanks stay. A CR on its own would make a literal of it."""
    if b"\n" in value:
        value = _FOLD.sub(b"", value)
    return value.replace(b"\r", b" ") if b"\r" in value else value


def _readable(value: bytes) -> bytes:
    """What a person reads: runs of blanks are one, none at the ends. As Dovecot does; clients show it alike."""
    return _BLANKS.sub(b" ", value).strip(b" ") if b"  " in value or b"\t" in value or b"\n" in value else value.strip()


def _text(value: bytes | None, form: Callable[[bytes], bytes] = _one_line) -> bytes:
    if value is None:
        return b"NIL"
    # A NUL cannot stand in any IMAP string but a literal8; 0x80 takes its place and keeps the length.
    return string(form(value).replace(b"\0", b"\x80"))


def _nul_free(value: bytes | None) -> bytes:
    return nstring(value if value is None or b"\0" not in value else value.replace(b"\0", b"\x80"))


# --- ENVELOPE


def _address_list(found: tuple[Address, ...]) -> bytes:
    if not found:
        return b"NIL"
    return b"(%s)" % b"".join(
        [
            b"(%s %s %s %s)" % (_text(name, _readable), _nul_free(route), _nul_free(mailbox), _nul_free(host))
            for name, route, mailbox, host in found
        ]
    )


def _addresses(value: bytes) -> tuple[Address, ...]:
    if REPEATED not in value:
        return addresses(value)
    return tuple([address for one in value.split(REPEATED) for address in addresses(one)])


def envelope(fields: Fields) -> bytes:
    """RFC 3501 §7.4.2 ENVELOPE from the first occurrence of each field; Sender and Reply-To default to From."""
    get = fields.get
    found = {name: _addresses(fields[name]) for name in ADDRESS_FIELDS if fields.get(name)}
    writer = _address_list(found.get(b"from", ()))
    return b"(%s %s %s %s %s %s %s %s %s %s)" % (
        _text(get(b"date")),
        _text(get(b"subject"), _readable),
        writer,
        _address_list(found[b"sender"]) if found.get(b"sender") else writer,
        _address_list(found[b"reply-to"]) if found.get(b"reply-to") else writer,
        _address_list(found.get(b"to", ())),
        _address_list(found.get(b"cc", ())),
        _address_list(found.get(b"bcc", ())),
        _text(get(b"in-reply-to")),
        _text(get(b"message-id")),
    )


# --- BODY and BODYSTRUCTURE


def _parameters(found: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"(%s)" % b" ".join([_nul_free(name) + b" " + _nul_free(value) for name, value in found])


def _disposition(fields: Fields) -> bytes:
    value = fields.get(b"content-disposition")
    if value is None:
        return b"NIL"
    kind, parameters = disposition(value)
    return b"(%s %s)" % (_nul_free(kind), _parameters(parameters) if parameters else b"NIL")


def _language(fields: Fields) -> bytes:
    tags = language_tags(fields.get(b"content-language", b""))
    return b"(%s)" % b" ".join(map(_nul_free, tags)) if tags else b"NIL"


def body_structure(part: Part, *, extended: bool = True) -> bytes:
    """RFC 3501 §7.4.2 BODYSTRUCTURE; BODY without `extended`."""
    if part.kind == MULTIPART:
        return _multipart(part, extended)
    fields, kind = part.fields, part.type
    main, sub = kind.main, kind.sub
    is_text = main.lower() == b"text"
    parameters = kind.parameters
    if part.kind == MESSAGE:
        out = [b'"message" "rfc822"']
        is_text = False
    else:
        out = [_nul_free(main), _nul_free(sub)]
    if is_text and kind.parameter(b"charset") is None:
        # RFC 2045 §5.2: the default is written out; clients differ in what they assume otherwise.
        parameters = (*parameters, (b"charset", b"us-ascii"))
    out.append(_parameters(parameters) if parameters else b"NIL")
    encoding = mime_token(fields.get(b"content-transfer-encoding", b""))
    out += [
        _text(fields.get(b"content-id")),
        _text(fields.get(b"content-description")),
        _nul_free(encoding or b"7bit"),
        b"%d" % part.octets,
    ]
    if is_text:
        out.append(b"%d" % part.lines)
    elif part.kind == MESSAGE:
        inner = part.children[0]
        out += [envelope(inner.fields), body_structure(inner, extended=extended), b"%d" % part.lines]
    if extended:
        out += [_text(fields.get(b"content-md5")), *_extension(fields)]
    return b"(%s)" % b" ".join(out)


def _extension(fields: Fields) -> list[bytes]:
    return [_disposition(fields), _language(fields), _text(fields.get(b"content-location"))]


def _multipart(part: Part, extended: bool) -> bytes:
    if part.children:
        children = b"".join([body_structure(child, extended=extended) for child in part.children])
    else:
        children = _NO_PART + (b" NIL NIL NIL NIL)" if extended else b")")
    out = [children, _nul_free(part.type.sub)]
    if extended:
        out.append(_parameters(part.type.parameters) if part.type.parameters else b"NIL")
        out += _extension(part.fields)
    return b"(%s)" % b" ".join(out)


# --- HEADER.FIELDS


def header_fields(header: bytes, names: frozenset[bytes], *, without: bool = False) -> bytes:
    """RFC 3501 §6.4.5 HEADER.FIELDS and HEADER.FIELDS.NOT: the fields so named (in lower case) as they stand, folded as
    they are and in their order, with an empty line behind them."""
    out = []
    for match in _FIELD_WITH_NAME.finditer(header):
        name = match.group(1)
        if not name:
            if match.group().strip(b"\r\n"):
                continue
            break
        if (name.lower() in names) is not without:
            out.append(match.group())
    if out and not out[-1].endswith(b"\n"):
        out.append(b"\r\n")
    out.append(b"\r\n")
    return b"".join(out)


__all__ = ["body_structure", "envelope", "header_fields", "literal"]
