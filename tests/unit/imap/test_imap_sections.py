"""What of a message stands behind BODY[...]: NUL, which no literal may hold (RFC 3501 §9), goes out as 0x80."""

import os
from pathlib import Path

import pytest

from services.imap import sections
from services.message import mime
from services.protocol.imap_fetch import BodyItem, Section
from services.protocol.imap_responses import literal
from services.storage.body import Message

HEADER = b"Subject: a\0b\r\nFrom: c\r\n\r\n"


@pytest.mark.parametrize("octets", [10, sections.PIECE, 3 * sections.PIECE])
@pytest.mark.parametrize("partial", [None, (3, 200_000)])
def test_a_nul_goes_out_as_another_octet_and_stays_in_the_file(
    tmp_path: Path, octets: int, partial: tuple[int, int] | None
) -> None:
    whole = HEADER + (b"x\0y\r\n" * (octets // 5 + 1))
    path = tmp_path / "message"
    path.write_bytes(whole)
    with Message(os.open(path, os.O_RDONLY)) as message:
        item = BodyItem(Section(), b"BODY[]", True, partial)
        sent = b"".join(sections.literal(message, item, None))
        root = mime.parse(whole).root
        section = Section(text="HEADER.FIELDS", fields=frozenset({b"subject"}))
        fields = BodyItem(section, b"BODY[HEADER.FIELDS (SUBJECT)]", True)
        header = b"".join(sections.literal(message, fields, root))
    start, most = partial or (0, len(whole))
    wanted = whole[start : start + most]
    assert sent == b"BODY[] {%d}\r\n" % len(wanted) + wanted.replace(b"\0", b"\x80")
    assert header == b"BODY[HEADER.FIELDS (SUBJECT)] {16}\r\nSubject: a\x80b\r\n\r\n"
    assert path.read_bytes() == whole


def test_a_literal_has_no_nul() -> None:
    assert literal(b"a\0b") == b"{3}\r\na\x80b"
