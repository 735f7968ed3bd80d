"""Publication: generations, modes, the swap, and a power cut at each of its steps."""

import os
import ssl
from pathlib import Path

import pytest
from certificates import NOW, Issued, issue
from power_cut import NAMES_LOST, power_cut

from services.acme.certificate import Pair, Unusable
from services.acme.install import publish, published
from services.runtime.tls import ServerCertificates

HOST = "mail.example.test"
ONE, TWO, THREE = (issue(HOST, serial=number) for number in (0x1111AAAA, 0x2222BBBB, 0x3333CCCC))


def put(folder: Path, issued: Issued, now: float = NOW, ca: bytes = b"") -> bool:
    return publish(str(folder), Pair(issued.chain, issued.key, ca, origin="/x.pem"), issued.serial, now)


def generations(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.is_symlink())


def test_the_first_certificate(tmp_path: Path) -> None:
    assert published(str(tmp_path)) is None
    assert put(tmp_path, ONE, ca=b"CA")
    assert os.readlink(tmp_path / "current") == "20261114T234640Z-1111aaaa"
    assert published(str(tmp_path)) == Pair(ONE.chain, ONE.key, b"CA", "the certificate in use")
    assert not put(tmp_path, ONE, NOW + 60, ca=b"CA"), "the same again changes nothing"
    assert generations(tmp_path) == ["20261114T234640Z-1111aaaa"]


@pytest.mark.parametrize("umask", [0, 0o027, 0o077])
def test_modes_let_the_group_read_and_nobody_else_the_key(tmp_path: Path, umask: int) -> None:
    os.chmod(tmp_path, 0o2750)
    before = os.umask(umask)
    try:
        put(tmp_path, ONE, ca=b"CA")
    finally:
        os.umask(before)
    folder = (tmp_path / "current").resolve()
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "privkey.pem": 0o640,
        "fullchain.pem": 0o644,
        "ca.pem": 0o644,
    }
    assert folder.stat().st_mode & 0o2700 == 0o2700, "the group is handed down"


def test_group_by_the_setgid_folder(tmp_path: Path) -> None:
    """As root without capabilities nothing can be given to a group by chown; the folder does it."""
    groups = [group for group in os.getgroups() if group != os.getegid()] or ([5002] if os.geteuid() == 0 else [])
    group = groups[0] if groups else os.getegid()
    os.chown(tmp_path, -1, group)
    os.chmod(tmp_path, 0o2750)
    put(tmp_path, ONE)
    folder = (tmp_path / "current").resolve()
    assert {path.stat().st_gid for path in (folder, *folder.iterdir())} == {group}


def test_the_one_before_stays_for_readers_on_their_way(tmp_path: Path) -> None:
    put(tmp_path, ONE, NOW)
    put(tmp_path, TWO, NOW + 1)
    assert [name[-8:] for name in generations(tmp_path)] == ["1111aaaa", "2222bbbb"]
    put(tmp_path, THREE, NOW + 2)
    assert [name[-8:] for name in generations(tmp_path)] == ["2222bbbb", "3333cccc"]
    current = published(str(tmp_path))
    assert current is not None and current.key == THREE.key


def test_a_generation_name_is_never_used_twice(tmp_path: Path) -> None:
    """Listeners compare names: the same name with other contents would not be loaded."""
    put(tmp_path, ONE)
    put(tmp_path, TWO)
    put(tmp_path, ONE)
    names = generations(tmp_path)
    put(tmp_path, ONE, ca=b"CA")
    assert os.readlink(tmp_path / "current") not in names


def test_only_our_own_names_are_removed(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes").write_text("x")
    os.symlink("nowhere", tmp_path / "current.0a1b2c3d4e5f")
    (tmp_path / "20200101T000000Z-deadbeef").mkdir()
    put(tmp_path, ONE)
    put(tmp_path, TWO, NOW + 1)
    assert sorted(os.listdir(tmp_path)) == [
        "20261114T234640Z-1111aaaa", "20261114T234641Z-2222bbbb", "current", "lost+found", "notes"
    ]  # fmt: skip


def test_a_setting_from_self_signed_to_public_drops_the_old_ca(tmp_path: Path) -> None:
    put(tmp_path, ONE, ca=b"CA")
    put(tmp_path, TWO, NOW + 1)
    assert not (tmp_path / "current" / "ca.pem").exists()


def test_what_openssl_cannot_load_is_never_current(tmp_path: Path) -> None:
    put(tmp_path, ONE)
    with pytest.raises(Unusable, match=r"/x\.pem: OpenSSL does not serve"):
        put(tmp_path, issue(HOST, rsa_bits=1024), NOW + 1)
    with pytest.raises(Unusable, match="OpenSSL"):
        put(tmp_path, Issued(TWO.chain, THREE.key, "3", TWO.certificate), NOW + 2)
    current = published(str(tmp_path))
    assert current is not None and current.key == ONE.key
    assert len(generations(tmp_path)) == 1


def test_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, ONE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            put(tmp_path, TWO, NOW + 1)
    assert len(generations(tmp_path)) == 1 and published(str(tmp_path)).key == ONE.key  # type: ignore[union-attr]


@pytest.mark.parametrize("names_lost", NAMES_LOST)
@pytest.mark.parametrize("first", [True, False], ids=["first certificate", "renewal"])
def test_a_power_cut_leaves_one_whole_certificate(tmp_path: Path, first: bool, names_lost: str) -> None:
    for steps in range(200):
        folder = tmp_path / str(steps)
        folder.mkdir()
        if not first:
            put(folder, ONE, NOW)
            put(folder, TWO, NOW + 1)
        with power_cut(steps, names_lost=names_lost) as cut:
            assert put(folder, THREE, NOW + 2, ca=b"CA")
        found = published(str(folder))
        if first and found is None:
            assert cut.happened and not os.path.exists(folder / "current")
        else:
            assert found is not None and (found.chain, found.key) in [(TWO.chain, TWO.key), (THREE.chain, THREE.key)]
            assert ServerCertificates(str(folder)).load(), "listeners start with it"
        put(folder, THREE, NOW + 3, ca=b"CA")
        assert published(str(folder)).key == THREE.key  # type: ignore[union-attr]
        if not cut.happened:
            assert steps > 15 and found is not None and found.key == THREE.key
            return
        put(folder, ONE, NOW + 4)
        leftovers = [name for name in os.listdir(folder) if name != "current"]
        assert len(leftovers) == 2, leftovers
    pytest.fail("publish never ended")


def test_a_reader_never_sees_a_chain_with_another_key(tmp_path: Path) -> None:
    """At every step of a renewal, what `current` names loads as it is."""
    put(tmp_path, ONE)
    seen: list[str] = []
    with power_cut(10_000) as cut:
        real = cut.step

        def step(name: str, path: str) -> None:
            real(name, path)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "current" / "fullchain.pem", tmp_path / "current" / "privkey.pem")
            seen.append(os.readlink(tmp_path / "current")[-8:])

        cut.step = step  # type: ignore[method-assign]
        put(tmp_path, TWO, NOW + 1)
    assert not cut.happened and set(seen) == {"1111aaaa", "2222bbbb"}
