"""Tag-lists, `name=value; name=value`, as DKIM signatures, ARC sets and key records have them (RFC 6376 §3.2).

Called by `dkim_verify`, `dkim_record` and `arc`. Pure; raises BadTagList, never anything else. Linear in the length.
"""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["BadTagList", "base64_value", "tag_list", "unfolded", "without_tag"]

_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
# VALCHAR is printable ASCII but ";"; RFC 8616 §6 adds UTF-8. White space only inside.
_VALUE = re.compile(rb"[\x21-\x3a\x3c-\x7e\x80-\xff \t]*")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_FWS = re.compile(rb"[ \t\r\n]+")
_WHITE_SPACE = b" \t\r\n"


class BadTagList(ValueError):
    """No tag-list; the text says what is wrong with it, in words for the owner's trace."""


def unfolded(value: bytes) -> bytes:
    """`value` without the line breaks of its folding (RFC 5322 §2.2.3)."""
    return _FOLD.sub(b"", value) if b"\r\n" in value else value


def tag_list(value: bytes) -> dict[str, bytes]:
    """The tags of `value` in their order, the values without white space around them. Raises BadTagList.

    Names are case-sensitive (RFC 6376 §3.2). One semicolon may end the list; an empty tag elsewhere is none.
    """
    specs = unfolded(value).split(b";")
    if not specs[-1].strip(_WHITE_SPACE):
        specs.pop()
    tags: dict[str, bytes] = {}
    for spec in specs:
        name, equals, text = spec.partition(b"=")
        name = name.strip(_WHITE_SPACE)
        if not equals or not _NAME.fullmatch(name):
            raise BadTagList("the tags are not name=value with semicolons between them")
        key = name.decode("ascii")
        if key in tags:
            # RFC 6376 §3.2: "Tags with duplicate names MUST NOT occur"; with two d= each reader may see another.
            raise BadTagList(f"the tag {key[:20]}= is there twice")
        text = text.strip(_WHITE_SPACE)
        if not _VALUE.fullmatch(text):
            raise BadTagList(f"the tag {key[:20]}= has a control character")
        tags[key] = text
    return tags


def base64_value(text: bytes) -> bytes | None:
    """The octets of a base64 value, white space taken out (RFC 6376 §3.5 b=, bh=, §3.6.1 p=); None where it is none."""
    try:
        return base64.b64decode(_FWS.sub(b"", text), validate=True)
    except (binascii.Error, ValueError):
        return None


def without_tag(value: bytes, name: bytes) -> bytes:
    """`value`, folded as it is, with the tag's value and the white space around that deleted (RFC 6376 §3.7)."""
    specs = value.split(b";")
    for number, spec in enumerate(specs):
        found, equals, _ = spec.partition(b"=")
        if equals and found.strip(_WHITE_SPACE) == name:
            specs[number] = found + equals
    return b";".join(specs)
