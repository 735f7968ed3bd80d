"""Mail as people keep it: mbox, Maildir, folders of files; each message once, in order."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.storage import mail_files
from services.storage.mail_files import messages


def letter(number: int) -> bytes:
    return b"Subject: %d\r\n\r\nbody %d\r\n" % (number, number)


def numbers(path: Path) -> list[int]:
    return [int(octets.split(b"Subject: ")[1].split()[0]) for octets in messages(str(path))]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_mbox(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "mail.mbox"
    path.write_bytes(
        b"".join(
            b"From x@y Thu Jan  1 00:00:0%d 1970\nSubject: %d\n\nFrom here on\n>From the text\n\n" % (n, n)
            for n in range(3)
        ).replace(b"\n", end)
    )
    assert numbers(path) == [0, 1, 2]
    first = next(iter(messages(str(path))))
    assert first.startswith(b"Subject: 0")
    assert b"From here on" in first
    assert b"\nFrom the text" in first


def test_mbox_without_times(tmp_path: Path) -> None:
    path = tmp_path / "mail"
    path.write_bytes(b"".join(b"From x@y\nSubject: %d\n\nFrom here\n\nFrom now on\n\n" % n for n in range(3)))
    assert numbers(path) == [0, 1, 2]


def test_maildir_with_folders(tmp_path: Path) -> None:
    for folder, name, number in (
        ("cur", "1700000002.M1P1.host:2,S", 2), ("cur", "999.M1P1.host:2,S", 1), ("new", "1700000003.M1.host", 3),
        ("tmp", "1700000009.x", 9), (".Junk/cur", "1700000004.M1.host:2,", 4),
    ):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_bytes(letter(number))
    (tmp_path / "dovecot-uidlist").write_bytes(b"3 V1")
    (tmp_path / "cur" / "dovecot.index").write_bytes(b"x")
    assert numbers(tmp_path) == [1, 2, 3]
    assert numbers(tmp_path / ".Junk") == [4]
    assert numbers(tmp_path / "cur") == [1, 2]


def test_a_folder_of_files_and_of_mboxes(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        (tmp_path / f"{number}.eml").write_bytes(letter(number))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "old").write_bytes(b"From a Thu Jan  1 00:00:00 1970\nSubject: 11\n\nx\n")
    assert numbers(tmp_path) == [1, 9, 10, 11]


def test_what_is_no_mail_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.eml").write_bytes(b"")
    (tmp_path / "1.eml").write_bytes(letter(1))
    (tmp_path / ".hidden").write_bytes(letter(2))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    skipped: list[str] = []
    assert len(list(messages(str(tmp_path), skipped.append))) == 1
    assert [Path(path).name for path in skipped] == ["empty.eml"]
    with pytest.raises(OSError):
        list(messages(str(tmp_path / "nowhere")))
    monkeypatch.setattr(mail_files, "MOST_OCTETS", 12)
    assert list(messages(str(tmp_path / "1.eml"))) == [letter(1)[:12]]
    (tmp_path / "none.mbox").write_bytes(b"")
    assert list(messages(str(tmp_path / "none.mbox"))) == []


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_file_is_read(tmp_path_factory: pytest.TempPathFactory, octets: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "mail"
    path.write_bytes(octets)
    list(messages(str(path)))
