"""The key files: made whole, found again, never outside of their folder."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from power_cut import NAMES_LOST, power_cut

from services.dkim import keys as keys_module
from services.dkim.keys import ED25519, RSA, KeyStore, NoKey
from services.message.dkim_signature import BadKey

NOVEMBER = 1_794_000_000.0  # 2026-11-06


def store(folder: Path, now: float = NOVEMBER) -> KeyStore:
    return KeyStore(str(folder), lambda: now)


def test_make_gives_both_kinds_once(tmp_path: Path) -> None:
    keys = store(tmp_path)
    made = keys.make("example.test")
    assert [each.selector for each in made] == ["ms202611r", "ms202611e"]
    assert keys.make("example.test") == []
    found = keys.keys("example.test")
    assert {kind: each.selector for kind, each in found.items()} == {RSA: "ms202611r", ED25519: "ms202611e"}
    assert found[RSA].key.private.key_size == 2048  # type: ignore[union-attr]
    assert keys.keys("example.test")[RSA] is found[RSA], "the key object is kept"
    again = store(tmp_path).keys("example.test")
    assert {each.selector for each in again.values()} == {"ms202611r", "ms202611e"}


def test_files_are_for_the_room_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store(tmp_path).make("example.test")
    finally:
        os.umask(before)
    folder = tmp_path / "example.test"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted((path.name, path.stat().st_mode & 0o777) for path in folder.iterdir()) == [
        ("ms202611e.pem", 0o600),
        ("ms202611r.pem", 0o600),
    ]


def test_a_domain_without_a_folder_or_file_has_no_key(tmp_path: Path) -> None:
    keys = store(tmp_path)
    with pytest.raises(NoKey, match=r"other\.test"):
        keys.keys("other.test")
    (tmp_path / "other.test").mkdir()
    with pytest.raises(NoKey):
        keys.keys("other.test")


def test_an_imported_or_removed_key_is_seen_without_a_restart(tmp_path: Path) -> None:
    keys = store(tmp_path)
    keys.make("example.test")
    keys.keys("example.test")
    folder = tmp_path / "example.test"
    (folder / "ms202611e.pem").unlink()
    os.utime(folder, ns=(1, 1))  # the kernel's clock may not have ticked between the two writes of this test
    assert set(keys.keys("example.test")) == {RSA}
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "mail.pem").write_bytes(pem)
    os.utime(folder, ns=(2, 2))
    assert keys.keys("example.test")[ED25519].selector == "mail"


def test_the_newest_of_a_kind_signs(tmp_path: Path) -> None:
    store(tmp_path).make("example.test")
    folder = tmp_path / "example.test"
    (folder / "ms202612r.pem").write_bytes((folder / "ms202611r.pem").read_bytes())
    assert store(tmp_path).keys("example.test")[RSA].selector == "ms202612r"


@pytest.mark.parametrize(
    "name", [".ms202611r.pem.0a1b2c", "ms202611r.pem.bak", "-x.pem", "a b.pem", "x;l=0.pem", "key"]
)
def test_what_is_no_key_file_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "example.test").mkdir()
    (tmp_path / "example.test" / name).write_text("not a key")
    keys = store(tmp_path)
    assert len(keys.make("example.test")) == 2
    assert {each.selector for each in keys.keys("example.test").values()} == {"ms202611r", "ms202611e"}


def test_a_broken_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "example.test").mkdir()
    (tmp_path / "example.test" / "ms202611r.pem").write_text("not a key")
    with pytest.raises(BadKey, match=r"example\.test/ms202611r\.pem: not a private key"):
        store(tmp_path).keys("example.test")


def test_a_signature_between_the_two_files_hides_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both writes may fall into one tick of the kernel's clock: the folder's time says nothing then."""
    keys = store(tmp_path)
    write = keys_module.write_durable

    def write_within_one_tick(path: str, data: bytes, mode: int) -> None:
        write(path, data, mode)
        os.utime(tmp_path / "example.test", ns=(7, 7))
        keys.keys("example.test")

    monkeypatch.setattr(keys_module, "write_durable", write_within_one_tick)
    keys.make("example.test")
    assert len(keys.keys("example.test")) == 2


def test_no_key_is_overwritten_by_a_new_one(tmp_path: Path) -> None:
    """An imported Ed25519 key under the name that the new RSA key would get."""
    store(tmp_path).make("example.test")
    folder = tmp_path / "example.test"
    os.replace(folder / "ms202611e.pem", folder / "ms202611r.pem")
    kept = (folder / "ms202611r.pem").read_bytes()
    with pytest.raises(BadKey, match="in the way"):
        store(tmp_path).make("example.test")
    assert (folder / "ms202611r.pem").read_bytes() == kept


def test_complete_makes_what_is_missing_in_domains_only(tmp_path: Path) -> None:
    keys = store(tmp_path)
    for domain in ("a.test", "b.test", "c.test"):
        keys.make(domain)
    (tmp_path / "a.test" / "ms202611e.pem").unlink()
    os.rename(tmp_path / "b.test" / "ms202611r.pem", tmp_path / "b.test" / "imported.pem")
    for stranger in ("lost+found", ".hidden", "UPPER.test"):
        (tmp_path / stranger).mkdir()
    (tmp_path / "file.test").write_text("")
    made = store(tmp_path).complete()
    assert [(domain, key.selector) for domain, key in made] == [("a.test", "ms202611e")]
    assert not list((tmp_path / "lost+found").iterdir())
    assert store(tmp_path).domains() == ["a.test", "b.test", "c.test"]


@pytest.mark.parametrize("names_lost", NAMES_LOST)
def test_a_power_cut_leaves_whole_keys_or_none(tmp_path: Path, names_lost: str) -> None:
    for steps in range(100):
        folder = tmp_path / str(steps)
        folder.mkdir()
        with power_cut(steps, names_lost=names_lost) as cut:
            made = store(folder).make("example.test")
        if not cut.happened:
            assert [key.selector for key in made] == ["ms202611r", "ms202611e"]
            assert steps > 10, "the steps were counted"
            for key in made:
                assert store(folder).keys("example.test")[key.key.algorithm].selector == key.selector
            break
        restarted = store(folder)
        try:
            survived = {key.selector: kind for kind, key in restarted.keys("example.test").items()}
        except NoKey:
            survived = {}
        contents = {name: (folder / "example.test" / f"{name}.pem").read_bytes() for name in survived}
        restarted.complete()
        if (folder / "example.test").exists():  # else the domain was never begun: admin asks again
            assert len(restarted.keys("example.test")) == 2
        for name, content in contents.items():
            assert (folder / "example.test" / f"{name}.pem").read_bytes() == content, "a key that was seen stays"
    else:
        pytest.fail("make never ended")


@pytest.mark.parametrize("names_lost", NAMES_LOST)
def test_what_make_returned_survives_a_cut_right_after(tmp_path: Path, names_lost: str) -> None:
    with power_cut(10_000, names_lost=names_lost) as cut:
        store(tmp_path).make("example.test")
        cut.left = 0
        os.mkdir(tmp_path / "later")
    assert cut.happened
    assert len(store(tmp_path).keys("example.test")) == 2
