"""The `subscriptions` file in a Maildir, as Dovecot reads and writes it: people move in and out with it.

Used by account: read when an account is opened for the first time, written after each change. state.db is the truth.
"""

from __future__ import annotations

import contextlib
import os

from services.protocol.imap_names import decode_name, encode_name
from services.protocol.imap_syntax import BadSyntax
from services.storage.atomic import write_durable_at
from services.storage.errors import BadName
from services.storage.folder_names import canonical
from services.storage.paths import open_message

FILE = "subscriptions"
_MOST = 1 << 20
_VERSION_2 = "V\t2"  # Dovecot 2.3: then levels are parted by tabs; before, by the separator


def load(root: int) -> frozenset[str] | None:
    """The names in the file; None if there is none."""
    try:
        descriptor = open_message(FILE, root)
    except FileNotFoundError:
        return None
    try:
        lines = os.pread(descriptor, _MOST, 0).decode("utf-8", "replace").split("\n")
    finally:
        os.close(descriptor)
    levels = "\t" if lines[0] == _VERSION_2 else "."
    names = set()
    for line in lines[1:] if levels == "\t" else lines:
        with contextlib.suppress(BadName, BadSyntax):
            if line:
                names.add(canonical(".".join(decode_name(level.encode("utf-8")) for level in line.split(levels))))
    return frozenset(names)


def save(root: int, names: frozenset[str]) -> None:
    """Write the file. Raises OSError."""
    lines = [_VERSION_2, "", *(encode_name(name).decode("ascii").replace(".", "\t") for name in sorted(names)), ""]
    write_durable_at(root, FILE, "\n".join(lines).encode("ascii"), 0o600)
