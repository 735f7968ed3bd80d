"""The one door that every text of the page goes through, so that a catalogue can stand behind it."""

from __future__ import annotations


def _(message: str) -> str:
    """`message` in the reader's language; English is the only one yet."""
    return message
