"""The octets of one stored message as IMAP counts them: CRLF line ends, whatever the file has.

Called by mailbox. (Writing goes through codec.)
"""

from __future__ import annotations

from typing import Protocol


class Message(Protocol):
    """One open message."""

    size: int  # RFC822.SIZE: octets with CRLF line ends

    def read(self, offset: int = 0, length: int = -1) -> bytes:
        """Octets from `offset`; fewer at the end. Raises OSError."""

    def plain_file(self) -> int:
        """A descriptor whose octets are the message's, for sendfile, or -1 (LF file, coded body)."""

    def close(self) -> None:
        """Idempotent."""

    def __enter__(self) -> Message: ...

    def __exit__(self, *exc: object) -> None: ...
