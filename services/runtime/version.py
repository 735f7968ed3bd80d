"""Which build of Mailstead this is: a digest of the code itself.

Told apart by content, not by a number that a person must remember to raise: two builds from one state of the code are
the same version, and a stack built on the spot has one as much as a released image has.
"""

from __future__ import annotations

import functools
import hashlib
import os

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHARACTERS = 16


@functools.cache
def code_version(package: str = PACKAGE) -> str:
    """16 hex characters; reads the package's files once (1.5 MB, some 10 ms): call it in a thread. Raises OSError."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(package):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(folder, name)
            digest.update(os.path.relpath(path, package).encode() + b"\0")
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:CHARACTERS]
