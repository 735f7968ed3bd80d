"""A .po file as translations that the standard library's `gettext` answers from.

`gettext` reads the compiled form alone, so the texts are put into that form in memory (the GNU manual, "The Format of
GNU MO Files") and handed over: plural rules and the fall back to English are then the library's. Reads what Babel
writes: comments, `msgid`, `msgid_plural`, `msgstr`, `msgstr[n]`, strings continued over lines. Fuzzy and empty
translations are left out, so that the page shows English rather than a guess; contexts (`msgctxt`) are not used here.
"""

from __future__ import annotations

import gettext
import io
import re
import struct

MAGIC = 0x950412DE
_LINE = re.compile(r'(?:(msgid|msgid_plural|msgstr)(?:\[(\d)\])?\s+)?"(.*)"')
_ESCAPED = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


def read_catalogue(path: str) -> gettext.GNUTranslations:
    """The translations in a .po file. Raises OSError, ValueError for what is none."""
    with open(path, encoding="utf-8") as file:
        entries = read_entries(file.read())
    return gettext.GNUTranslations(io.BytesIO(_compiled(entries)))


def read_entries(text: str) -> dict[str, str]:
    """msgid → msgstr; of a plural entry the forms are joined by NUL on both sides, as the compiled form has them."""
    found: dict[str, str] = {}
    for number, block in enumerate(re.split(r"\n\s*\n", text)):
        fuzzy = False
        fields: dict[tuple[str, str], str] = {}
        current = ("", "")
        for line in block.splitlines():
            if line.startswith("#"):
                fuzzy = fuzzy or (line.startswith("#,") and "fuzzy" in line)
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None or not (match[1] or current[0]):
                raise ValueError(f"entry {number}: not a line of a catalogue: {line[:80]!r}")
            if match[1]:
                current = (match[1], match[2] or "")
            fields[current] = fields.get(current, "") + _ESCAPED.sub(lambda found: _ESCAPES[found[1]], match[3])
        if ("msgid", "") not in fields or (fuzzy and fields["msgid", ""]):
            continue
        names = [fields[name] for name in (("msgid", ""), ("msgid_plural", "")) if name in fields]
        forms = [value for (name, _), value in sorted(fields.items()) if name == "msgstr"]
        if all(forms) and forms:
            found["\0".join(names)] = "\0".join(forms)
    return found


def _compiled(entries: dict[str, str]) -> bytes:
    pairs = sorted((key.encode(), value.encode()) for key, value in entries.items())
    texts, offsets = bytearray(), []
    for pair in pairs:
        for text in pair:
            offsets.append((len(text), len(texts)))
            texts += text + b"\0"
    start = 28 + 16 * len(pairs)  # behind the header and two tables of (length, offset)
    tables = [offsets[column::2] for column in (0, 1)]
    header = struct.pack("<7I", MAGIC, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, start)
    return header + b"".join(struct.pack("<2I", size, start + at) for table in tables for size, at in table) + texts
