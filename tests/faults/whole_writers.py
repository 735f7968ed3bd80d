"""The writers of the whole house, for power cuts: the backup's file, and a restore over a house that is there."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

from services.backup import contents, restore, save
from services.setup.places import places
from services.storage.copies import restore_unfinished
from tests.faults import mail_writers, small_writers
from tests.faults.writer import Promises, Tell, Writer

NOW = 1_800_000_000.0


def no_settings() -> io.BytesIO:
    """The env files that scripts/backup hands over: none."""
    output = io.BytesIO()
    tarfile.open(fileobj=output, mode="w").close()
    return io.BytesIO(output.getvalue())


def house(root: Path, name: str) -> None:
    """Volumes with an account, mail, keys and a queue; `name` tells one house from another."""
    for place in places():
        (root / place.volume / place.inside).mkdir(parents=True, exist_ok=True)
    (root / "mail/.incoming").mkdir(exist_ok=True)

    def forget(**_: object) -> None:
        pass

    (root / "admin/directory.db").unlink(missing_ok=True)
    directory = small_writers.directories(root)
    directory.add_domain(f"{name}.example")
    directory.add_account(f"anna@{name}.example", "$hash")
    directory.database.close()
    small_writers.KeyStore(str(root / "dkim"), lambda: NOW).make(f"{name}.example")
    maildir = root / f"mail/{name}.example/anna"
    for sub in ("cur", "new", "tmp"):
        (maildir / sub).mkdir(parents=True)
    for number in range(3):
        (maildir / f"cur/{number}.M{number}.{name}:2,S").write_bytes(f"Subject: {name} {number}\r\n\r\n".encode() * 40)
    mail_writers.queue_write(root, forget)


def sums(root: Path) -> dict[str, str]:
    """What a house holds: path → digest of each file that is kept as it is."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("mail", "dkim", "spool/msg")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


# --- scripts/backup: the container's output into FILE.partial, then sync, mv, sync


def backup_prepare(root: Path) -> None:
    house(root.parent / "house", "old")


def backup_write(root: Path, tell: Tell) -> None:
    file = root / "house.tar"
    with open(f"{file}.partial", "wb") as output:
        save.save(str(root.parent / "house"), no_settings(), output, NOW)
    script = (Path(__file__).parents[2] / "scripts/backup").read_text()
    steps = [line for line in script.splitlines() if line.startswith(("sync ", "mv "))]
    assert len(steps) == 3, steps
    subprocess.run(
        ["bash", "-ec", "\n".join(steps)], check=True, env={**os.environ, "file": str(file), "folder": str(root)}
    )
    tell(written=True)


def backup_check(root: Path, promised: Promises) -> None:
    file = root / "house.tar"
    assert file.exists() or not promised, "it was said to be written"
    if file.exists():
        with file.open("rb") as source:
            assert restore.check(source).messages == 3, "whole or not there under this name"


# --- restore over a house that is there


def restore_prepare(root: Path) -> None:
    house(root, "old")
    house(root.parent / "new", "new")
    with (root.parent / "backup.tar").open("wb") as output:
        save.save(str(root.parent / "new"), no_settings(), output, NOW)


def restored(root: Path, *, force: bool) -> None:
    with (root.parent / "backup.tar").open("rb") as source:
        restore.restore(str(root), source, io.BytesIO(), force=force)


def restore_write(root: Path, tell: Tell) -> None:
    restored(root, force=True)
    tell(restored=True)


def restore_check(root: Path, promised: Promises) -> None:
    new = sums(root.parent / "new")
    unfinished = restore_unfinished(str(root / contents.MAIL))
    whole = sums(root) == new and not unfinished
    if promised:
        assert whole or unfinished, "it was said to be restored"
    elif not unfinished and not whole:
        kept = sums(root)
        assert len(kept) >= 5 and all("old.example" in name or name.startswith("spool") for name in kept), (
            "half a house, and nothing says so"
        )
        assert (root / "admin/directory.db").exists()
    if unfinished:
        with contextlib.suppress(FileNotFoundError):
            (root / "spool/held").unlink()
        restored(root, force=False)
        assert sums(root) == new and not restore_unfinished(str(root / contents.MAIL))
    if whole or unfinished:
        assert (root / "spool/held").exists(), "a restored queue waits for its owner"


WRITERS = {
    "backup": Writer("the backup's file", backup_prepare, backup_write, backup_check),
    "restore": Writer("a restore over another house", restore_prepare, restore_write, restore_check),
}
