"""The three sources: certbot's tree with its renewals, two files of the owner's, and the local CA."""

import os
import shutil
from pathlib import Path

import pytest
from certificates import DAY, NOW, Issued, issue

from services.acme.certificate import Incomplete, Pair, Unusable
from services.acme.sources import LetsEncrypt, Manual, SelfSigned, Source, WrongSetting, source_for
from services.runtime.values import Settings

HOST = "mail.example.test"


class Certbot:
    """A folder as certbot keeps it: numbered files in archive, relative links in live, all for its owner alone."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "letsencrypt"
        for name in ("live", "archive"):
            (self.root / name).mkdir(parents=True)
            (self.root / name).chmod(0o700)
        (self.root / "live" / "README").write_text("certbot puts this here")
        self.numbers: dict[str, int] = {}

    def write(self, lineage: str, issued: Issued) -> int:
        """The new files, not yet linked."""
        number = self.numbers[lineage] = self.numbers.get(lineage, 0) + 1
        for folder in ("live", "archive"):
            (self.root / folder / lineage).mkdir(exist_ok=True)
        archive = self.root / "archive" / lineage
        (archive / f"privkey{number}.pem").write_bytes(issued.key)
        (archive / f"privkey{number}.pem").chmod(0o600)
        (archive / f"fullchain{number}.pem").write_bytes(issued.chain)
        return number

    def link(self, lineage: str, name: str) -> None:
        live = self.root / "live" / lineage / f"{name}.pem"
        live.unlink(missing_ok=True)
        live.symlink_to(f"../../archive/{lineage}/{name}{self.numbers[lineage]}.pem")

    def issue(self, lineage: str, issued: Issued) -> None:
        self.write(lineage, issued)
        self.link(lineage, "privkey")
        self.link(lineage, "fullchain")


def taken(source: Source) -> bytes:
    return source.take(None, NOW).key


def test_letsencrypt_takes_the_lineage_of_the_host(tmp_path: Path) -> None:
    certbot, source = Certbot(tmp_path), LetsEncrypt(HOST, str(tmp_path / "letsencrypt"))
    web, mail = issue("www.example.test"), issue(HOST, "example.test")
    certbot.issue("example.test", web)
    certbot.issue("mail.example.test", mail)
    pair = source.take(None, NOW)
    assert (pair.chain, pair.key, pair.ca) == (mail.chain, mail.key, b"")
    assert pair.origin.endswith("live/mail.example.test/fullchain.pem")


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (issue(HOST, lasts=10 * DAY), issue(HOST, lasts=80 * DAY), 2),
        (issue(HOST, lasts=80 * DAY), issue(HOST, lasts=10 * DAY), 1),
        (issue(HOST, lasts=10 * DAY), issue("*.example.test", lasts=80 * DAY), 2),
        (issue("*.example.test"), issue(HOST), 2),
        (issue("*.example.test"), issue("a.test"), 1),
    ],
)
def test_letsencrypt_takes_what_lasts_longest(tmp_path: Path, first: Issued, second: Issued, chosen: int) -> None:
    certbot, source = Certbot(tmp_path), LetsEncrypt(HOST, str(tmp_path / "letsencrypt"))
    certbot.issue("a", first)
    certbot.issue("a-0001", second)
    assert taken(source) == (first, second)[chosen - 1].key


def test_letsencrypt_notices_a_renewal_by_its_links(tmp_path: Path) -> None:
    certbot, source = Certbot(tmp_path), LetsEncrypt(HOST, str(tmp_path / "letsencrypt"))
    certbot.issue("m", issue(HOST))
    before = source.glance()
    assert source.glance() == before
    renewed = issue(HOST)
    certbot.write("m", renewed)
    assert source.glance() == before, "new files in the archive are not in use"
    certbot.link("m", "privkey")
    halfway = source.glance()
    assert halfway != before
    with pytest.raises(Incomplete):
        source.take(None, NOW)
    certbot.link("m", "fullchain")
    assert source.glance() not in (before, halfway)
    assert taken(source) == renewed.key


def test_letsencrypt_uses_a_whole_lineage_while_another_is_being_replaced(tmp_path: Path) -> None:
    certbot, source = Certbot(tmp_path), LetsEncrypt(HOST, str(tmp_path / "letsencrypt"))
    whole = issue("*.example.test")
    certbot.issue("a", whole)
    certbot.issue("b", issue(HOST))
    certbot.write("b", issue(HOST))
    certbot.link("b", "fullchain")
    assert taken(source) == whole.key


def test_letsencrypt_notices_a_new_and_a_deleted_lineage(tmp_path: Path) -> None:
    certbot, source = Certbot(tmp_path), LetsEncrypt(HOST, str(tmp_path / "letsencrypt"))
    tokens = [source.glance()]
    certbot.issue("a", issue(HOST))
    tokens.append(source.glance())
    certbot.issue("b", issue(HOST))
    tokens.append(source.glance())
    shutil.rmtree(certbot.root / "live" / "b")
    assert len(set(tokens)) == 3 and source.glance() == tokens[1]


def test_letsencrypt_notices_copies_in_place_of_links(tmp_path: Path) -> None:
    folder = tmp_path / "letsencrypt" / "live" / "m"
    folder.mkdir(parents=True)
    source = LetsEncrypt(HOST, str(tmp_path / "letsencrypt"))
    first, second = issue(HOST), issue(HOST)
    (folder / "fullchain.pem").write_bytes(first.chain)
    (folder / "privkey.pem").write_bytes(first.key)
    before = source.glance()
    assert taken(source) == first.key
    for name, content in (("fullchain.pem", second.chain), ("privkey.pem", second.key)):
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(1, 1))
    assert source.glance() != before and taken(source) == second.key


def test_letsencrypt_says_what_is_missing(tmp_path: Path) -> None:
    source = LetsEncrypt(HOST, str(tmp_path / "letsencrypt"))
    with pytest.raises(Unusable, match="is not there: mount the host's /etc/letsencrypt, the whole of it"):
        source.take(None, NOW)
    assert source.glance() == ""
    certbot = Certbot(tmp_path)
    with pytest.raises(Unusable, match="no certificate yet: run certbot"):
        source.take(None, NOW)
    certbot.issue("web", issue("www.example.test"))
    certbot.issue("old", Issued(b"rubbish", b"", "", issue("x").certificate))
    with pytest.raises(Unusable) as refused:
        source.take(None, NOW)
    for words in (
        "is for mail.example.test",
        "web is for www.example.test",
        "chain is not",
        "certbot certonly -d mail.example.test",
    ):
        assert words in str(refused.value)
    certbot.issue("mail", issue(HOST))
    shutil.rmtree(certbot.root / "archive")
    with pytest.raises(Unusable, match="link points outside of what is mounted"):
        source.take(None, NOW)


def test_letsencrypt_that_cannot_be_read_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who may read all; the kernel's answer is played."""
    Certbot(tmp_path)

    def denied(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", denied)
    source = LetsEncrypt(HOST, str(tmp_path / "letsencrypt"))
    assert source.glance() == ""
    with pytest.raises(Unusable, match=f"cannot be read as uid {os.geteuid()}: Permission denied"):
        source.take(None, NOW)


def test_manual_reads_two_files(tmp_path: Path) -> None:
    issued = issue(HOST)
    chain, key = tmp_path / "c.pem", tmp_path / "k.pem"
    source = Manual(str(chain), str(key))
    tokens = [source.glance()]
    with pytest.raises(Unusable, match=r"c\.pem is not there$"):
        source.take(None, NOW)
    chain.write_bytes(issued.chain)
    tokens.append(source.glance())
    with pytest.raises(Unusable, match=r"k\.pem is not there$"):
        source.take(None, NOW)
    key.write_bytes(issued.key)
    tokens.append(source.glance())
    assert source.take(None, NOW) == Pair(issued.chain, issued.key, origin=str(chain))
    os.utime(key, ns=(5, 5))
    tokens.append(source.glance())
    replacement = tmp_path / "new"
    replacement.write_bytes(issued.key)
    os.utime(replacement, ns=(5, 5))
    replacement.rename(key)
    tokens.append(source.glance())
    assert len(set(tokens)) == 5, "appearing, time and identity are all seen"


def test_manual_with_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="cannot be read as uid"):
        Manual(str(tmp_path), str(tmp_path)).take(None, NOW)


def test_manual_does_not_read_a_disk_into_memory(tmp_path: Path) -> None:
    big = tmp_path / "disk.img"
    with big.open("wb") as file:
        file.truncate(1 << 34)
    assert len(Manual(str(big), str(big)).take(None, NOW).chain) == 1 << 20


def test_self_signed_keeps_what_is_published(tmp_path: Path) -> None:
    source = SelfSigned(str(tmp_path / "ca"), HOST, "example.test")
    first = source.take(None, NOW)
    assert source.take(first, NOW + 300 * DAY) == first
    renewed = source.take(first, NOW + 380 * DAY)
    assert renewed.key != first.key and renewed.ca == first.ca
    other_host = SelfSigned(str(tmp_path / "ca"), "mx.example.test", "example.test")
    assert other_host.glance() != source.glance()
    assert other_host.take(first, NOW).key != first.key


def test_self_signed_replaces_what_came_from_elsewhere(tmp_path: Path) -> None:
    source = SelfSigned(str(tmp_path / "ca"), HOST, "example.test")
    public = issue(HOST)
    assert source.take(Pair(public.chain, public.key), NOW).key != public.key


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, SelfSigned("/var/lib/mailstead/room/ca", HOST, "example.test")),
        (
            {"mail_domain": "Family.Example"},
            SelfSigned("/var/lib/mailstead/room/ca", "mail.family.example", "family.example"),
        ),
        ({"ssl_type": "letsencrypt"}, LetsEncrypt(HOST, "/etc/letsencrypt")),
        ({"ssl_type": "manual", "ssl_cert_path": "/c", "ssl_key_path": "/k"}, Manual("/c", "/k")),
    ],
)
def test_the_setting_chooses(values: dict[str, str], expected: Source) -> None:
    assert source_for(Settings(**values)) == expected


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({}, "SSL_CERT_PATH=''"),
        ({"ssl_cert_path": "/c"}, "SSL_KEY_PATH=''"),
        ({"ssl_cert_path": "c.pem", "ssl_key_path": "/k"}, "SSL_CERT_PATH='c.pem'"),
    ],
)
def test_manual_without_its_paths_is_one_clear_line(values: dict[str, str], variable: str) -> None:
    with pytest.raises(WrongSetting) as refused:
        source_for(Settings(ssl_type="manual", **values))
    text = str(refused.value)
    assert text.startswith(variable) and "absolute path of a PEM file" in text and "\n" not in text
