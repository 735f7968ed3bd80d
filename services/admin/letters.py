"""What the letters that admin writes have in common: a Subject, and lines that every program shows."""

from __future__ import annotations


def encoded(text: str) -> str:
    """A header's text: as it is in ASCII, else as one encoded word (RFC 2047 §2)."""
    if text.isascii():
        return text
    import base64

    return f"=?utf-8?b?{base64.b64encode(text.encode()).decode()}?="


def wrapped(text: str) -> list[str]:
    """`text` in lines that every program shows, without control characters of its own."""
    import textwrap

    plain = "".join(character if character.isprintable() else " " for character in text)
    return textwrap.wrap(plain, 76) or [""]
