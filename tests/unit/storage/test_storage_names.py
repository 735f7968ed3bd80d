"""Names: of files, folders, accounts. Tables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.storage import maildir, paths
from services.storage.errors import BadName, MailboxMissing
from services.storage.folder_names import canonical, from_folder, parents, to_folder
from services.storage.maildir import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, UniqueNames


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("anna@family.example", ("family.example", "anna")),
        ("a.b+c=d@x.example", ("x.example", "a.b+c=d")),
        ("../../etc@x.example", ("x.example", "%2E.%2F..%2Fetc")),
        (".@x.example", ("x.example", "%2E")),
        ("..@..", ("%2E.", "%2E.")),
        ("a/b@x", ("x", "a%2Fb")),
        ("a%2Fb@x", ("x", "a%252Fb")),
        ("a\0b@x", ("x", "a%00b")),
        ("a\nb@x", ("x", "a%0Ab")),
        ("quoted@local@x.example", ("x.example", "quoted@local")),
        ("jürgen@x.example", ("x.example", "jürgen")),
    ],
)
def test_an_address_is_one_folder_below_one_folder(address: str, parts: tuple[str, str]) -> None:
    assert paths.account_parts(address) == parts
    assert paths.account_folder("/mail", address) == "/mail/" + "/".join(parts)


@pytest.mark.parametrize("address", ["anna", "@x", "anna@", "a" * 256 + "@x", "\udc80@x"])
def test_what_is_no_address_has_no_folder(address: str) -> None:
    with pytest.raises(BadName):
        paths.account_parts(address)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_two_names_never_share_a_folder(one: str, other: str) -> None:
    safe = []
    for name in (one, other):
        try:
            safe.append(paths.safe_part(name))
        except BadName:
            return
    assert (safe[0] == safe[1]) == (one == other)
    assert all("/" not in name and "\0" not in name and not name.startswith(".") for name in safe)


def test_a_walk_follows_no_link(folder: Path) -> None:
    (folder / "secret/cur").mkdir(parents=True)
    (folder / "mail/anna").mkdir(parents=True)
    (folder / "mail/anna/cur").symlink_to(folder / "secret/cur")
    (folder / "mail/bert").symlink_to(folder / "secret")
    start = os.open(folder / "mail", os.O_PATH)
    try:
        for parts in (("anna", "cur"), ("bert", "cur"), ("bert",), ("nobody", "cur")):
            with pytest.raises(MailboxMissing):
                paths.walk(start, *parts)
        os.close(paths.walk(start, "anna"))
    finally:
        os.close(start)


def test_only_regular_files_are_messages(folder: Path) -> None:
    (folder / "file").write_bytes(b"x")
    (folder / "link").symlink_to("file")
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    here = os.open(folder, os.O_RDONLY)
    try:
        os.close(paths.open_message("file", here))
        for name in ("link", "fifo", "folder", "nothing"):
            with pytest.raises(FileNotFoundError):
                paths.open_message(name, here)  # and returns at once: a FIFO does not hold us
        assert maildir.scan(here) == {"file"}
    finally:
        os.close(here)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("INBOX", ""),
        ("Archive.2026", ".Archive.2026"),
        ("INBOX.Sub", ".INBOX.Sub"),
        ("Entwürfe", ".Entw&APw-rfe"),
        ("收件箱", ".&ZTZO9nux-"),
        ("A&B", ".A&-B"),
        ("~peter", ".~peter"),
        ("cur", ".cur"),
    ],
)
def test_a_mailbox_is_a_folder_as_dovecot_names_it(name: str, folder: str) -> None:
    assert canonical(name) == name
    assert to_folder(name) == folder
    if folder:
        assert from_folder(folder) == name


@pytest.mark.parametrize(
    ("name", "spelt"),
    [("inbox", "INBOX"), ("iNbOx.x", "INBOX.x"), ("e\u0301", "\u00e9"), ("Inboxes", "Inboxes")],
)
def test_one_spelling(name: str, spelt: str) -> None:
    assert canonical(name) == spelt


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a/b",
        "../x",
        "a\0b",
        "a\nb",
        "\x7f",
        "x" * 255,
        "ü" * 120,
        ".".join("a" * 17),
        "\ud800",
    ],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(BadName):
        canonical(name)


@pytest.mark.parametrize("folder", ["", ".", "..", "..gone.1", "cur", ".a..b", ".x.", "..", ".INBOX", ".inbox"])
def test_folders_that_are_no_mailbox(folder: str) -> None:
    assert from_folder(folder) is None


@pytest.mark.parametrize(("folder", "name"), [(".Entwürfe", "Entwürfe"), (".A&B", "A&B"), (".&AGE-", "&AGE-")])
def test_folders_of_other_servers_are_shown(folder: str, name: str) -> None:
    assert from_folder(folder) == name


def test_parents() -> None:
    assert parents("A.B.C") == ["A", "A.B"]
    assert parents("A") == []


def test_file_names_sort_by_arrival_and_never_repeat() -> None:
    times = iter([100.0, 100.0, 99.0, 101.0])  # a clock set back puts no new mail before old
    names = UniqueNames(lambda: next(times), host="a/b:c,d")
    made = [names.next(10 + number, 10 + number) for number in range(4)]
    assert made == sorted(made, key=maildir.arrival_key)
    assert made[0].startswith("100.M000000P")
    assert made[0].endswith(".a\\057b\\072c\\054d,S=10,W=10")
    other = UniqueNames(lambda: 100.0, host="x")
    assert (
        len({other.next(1) for _ in range(100)} | {UniqueNames(lambda: 100.0, host="x").next(1) for _ in range(100)})
        == 200
    )


@pytest.mark.parametrize(
    ("name", "base", "letters"),
    [
        ("1.M2P3.h,S=5:2,FS", "1.M2P3.h,S=5", "FS"),
        ("1.M2P3.h", "1.M2P3.h", ""),
        ("1.M2P3.h:2,", "1.M2P3.h", ""),
        ("1:1,x", "1:1,x", ""),
    ],
)
def test_a_name_taken_apart(name: str, base: str, letters: str) -> None:
    assert maildir.split(name) == (base, letters)


@pytest.mark.parametrize(
    ("letters", "named", "bits", "kept"),
    [
        ("DFRST", 0, DRAFT | FLAGGED | ANSWERED | SEEN | DELETED, ""),
        ("S", 0, SEEN, ""),
        ("PS", 0, SEEN, "P"),
        ("Sac", 0b101, SEEN | 1 << 8 | 1 << 10, ""),
        ("Sac", 0b001, SEEN | 1 << 8, "c"),
        ("", 0b1, 0, ""),
        ("S,W=5", 0, SEEN, ",W=5"),
    ],
)
def test_letters_and_bits(letters: str, named: int, bits: int, kept: str) -> None:
    assert maildir.bits_of(letters, named) == bits
    assert maildir.foreign(letters, named) == kept
    assert sorted(maildir.letters_of(bits, kept)) == sorted(set(letters))
    assert maildir.letters_of(bits & maildir.LETTER_BITS, "") == "".join(sorted(set(letters) - set(kept)))


def test_keywords_beyond_z_are_not_in_names() -> None:
    assert maildir.letters_of(1 << 8 + 26 | 1 << 8 + 25) == "z"


@pytest.mark.parametrize(
    ("name", "octets", "virtual"),
    [
        ("1,S=10,W=12:2,S", 10, 12),
        ("1,S=10,W=10", 10, 10),
        ("1,S=10,W=12", 11, None),  # not that file's
        ("1,S=10,W=9", 10, None),  # CRLF makes nothing shorter
        ("1,S=10", 10, None),
        ("1,W=10", 10, None),
        ("1", 10, None),
    ],
)
def test_sizes_in_names_are_believed_if_they_fit(name: str, octets: int, virtual: int | None) -> None:
    assert maildir.virtual_size(name, octets) == virtual
