"""Setup: every folder gets its owner and mode, every room its own secrets and no other, and a second run does nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from power_cut import power_cut

from services.runtime import secrets
from services.setup import apply
from services.setup.places import RESERVED_UIDS, ROOMS, Place, gid_of, places, uid_of

ME = (os.geteuid(), os.getegid())
OWNERS = [(room, *ME) for room in ROOMS]


def volumes(root: Path) -> None:
    for place in places():
        (root / place.volume).mkdir(exist_ok=True)


def modes(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}


def test_folders_get_their_modes_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    volumes(tmp_path)
    mine = [Place(p.volume, p.path, *ME, p.mode, p.inside) for p in places()]
    changed = apply.hold_volumes(str(tmp_path), mine)
    assert str(tmp_path / "mail" / ".incoming") in changed
    for place in mine:
        assert stat.S_IMODE((tmp_path / place.volume / place.inside).stat().st_mode) == place.mode, place
    assert apply.hold_volumes(str(tmp_path), mine) == []


def test_a_folder_that_somebody_opened_is_closed_again(tmp_path: Path) -> None:
    place = Place("dkim", "/dkim", *ME, 0o700)
    folder = tmp_path / "dkim"
    assert apply.hold_folder(str(folder), place) is True
    folder.chmod(0o777)
    assert apply.hold_folder(str(folder), place) is True
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_a_folders_place_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (tmp_path / ".incoming").symlink_to(elsewhere)
    with pytest.raises(OSError):
        apply.hold_folder(str(tmp_path / ".incoming"), Place("mail", "", *ME, 0o2700, ".incoming"))
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


def test_a_setgid_bit_that_the_kernel_dropped_does_not_pass_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda descriptor, mode: real(descriptor, mode & ~0o2000))
    with pytest.raises(PermissionError, match="group_add"):
        apply.hold_folder(str(tmp_path / "certs"), Place("certs", "", *ME, 0o2750))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_the_secrets_of_its_pairs_and_no_other(tmp_path: Path, room: str) -> None:
    volumes(tmp_path)
    apply.hold_secrets(str(tmp_path), OWNERS)
    folder = tmp_path / f"secrets-{room}"
    assert sorted(os.listdir(folder)) == sorted(secrets.names_for(room))
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        assert path.read_bytes() == (tmp_path / "secrets" / path.name).read_bytes()


def test_secrets_are_made_once(tmp_path: Path) -> None:
    volumes(tmp_path)
    assert apply.hold_secrets(str(tmp_path), OWNERS) == sorted(secrets.every_name())
    before = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    assert apply.hold_secrets(str(tmp_path), OWNERS) == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()} == before
    assert len(set(before.values())) == len(before)


def test_a_secret_that_was_replaced_reaches_both_rooms(tmp_path: Path) -> None:
    volumes(tmp_path)
    apply.hold_secrets(str(tmp_path), OWNERS)
    (tmp_path / "secrets" / "admin+dkim").write_text("f" * 64)
    assert apply.hold_secrets(str(tmp_path), OWNERS) == ["admin+dkim"]
    for room in ("admin", "dkim"):
        assert (tmp_path / f"secrets-{room}" / "admin+dkim").read_text() == "f" * 64


def test_a_secret_that_is_not_a_rooms_is_taken_away(tmp_path: Path) -> None:
    volumes(tmp_path)
    apply.hold_secrets(str(tmp_path), OWNERS)
    stray = tmp_path / "secrets-smtp-in" / "admin+dkim"
    stray.write_text("f" * 64)
    assert apply.hold_secrets(str(tmp_path), OWNERS) == ["admin+dkim"]
    assert not stray.exists()


def test_after_a_power_cut_at_any_step_the_next_run_makes_it_whole(tmp_path: Path) -> None:
    owners = [(room, *ME) for room in ("dkim", "smtp-out")]
    for steps in range(1000):
        root = tmp_path / str(steps)
        for name in ("secrets", "secrets-dkim", "secrets-smtp-out"):
            (root / name).mkdir(parents=True)
        with power_cut(steps) as cut:
            apply.hold_secrets(str(root), owners)
        apply.hold_secrets(str(root), owners)
        pair = [(root / f"secrets-{room}" / "dkim+smtp-out").read_text() for room in ("dkim", "smtp-out")]
        assert pair[0] == pair[1] == (root / "secrets" / "dkim+smtp-out").read_text()
        assert len(pair[0]) == 64
        if not cut.happened:
            break
    else:
        raise AssertionError("the last step was never reached")
    assert steps > 20


def test_imap_owns_the_mail_and_nobody_else_is_given_its_number() -> None:
    by_path = {(place.volume, place.inside): place for place in places(1000, 1001)}
    assert (by_path["mail", ""].uid, by_path["mail", ""].gid) == (1000, 1001)
    assert (by_path["imap-state", ""].uid, by_path["imap-state", ""].mode) == (1000, 0o700)
    assert (by_path["mail", ".incoming"].uid, by_path["mail", ".incoming"].gid) == (10001, 1001)
    assert uid_of("imap", 1000) == 1000 and gid_of("imap", 1001) == 1001
    assert 5000 not in RESERVED_UIDS


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.setup", *arguments], capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize(
    ("name", "value"), [("uid", "0"), ("uid", "abc"), ("gid", "10006"), ("uid", "65534"), ("gid", "-1"), ("uid", "٥")]
)
def test_a_wrong_owner_is_named_with_what_is_allowed(tmp_path: Path, name: str, value: str) -> None:
    done = run("--root", str(tmp_path), f"--mail-{name}={value}")
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert f"MAIL_{name.upper()}='{value}'" in done.stderr and "from 1 to 65533" in done.stderr


def test_a_missing_volume_ends_it_with_its_name(tmp_path: Path) -> None:
    done = run("--root", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "nowhere/mail" in done.stderr
