"""`python -m services.setup`: prepare the volumes that are mounted under /volumes, each by its name."""

from __future__ import annotations

import argparse
import os
import sys

from services.setup import apply
from services.setup.places import MAIL_GID, MAIL_UID, RESERVED_UIDS, ROOMS, gid_of, places, uid_of
from services.storage.copies import restore_unfinished

EXIT_WRONG_SETTING = 78  # EX_CONFIG of sysexits.h, as the rooms leave


def main() -> int:
    """The exit status: 0, 1 when a folder cannot be put right, 78 for a wrong MAIL_UID or MAIL_GID."""
    parser = argparse.ArgumentParser(prog="python -m services.setup")
    parser.add_argument("--root", default="/volumes", help="where the volumes are mounted, by name")
    parser.add_argument("--mail-uid", default=str(MAIL_UID))
    parser.add_argument("--mail-gid", default=str(MAIL_GID))
    parser.add_argument(
        "--restoring", default="no", help="yes: called by scripts/restore, which may find half a restore"
    )
    arguments = parser.parse_args()
    if arguments.restoring != "yes" and restore_unfinished(os.path.join(arguments.root, "mail")):
        print("setup: a restore was cut off before its end: run scripts/restore again", file=sys.stderr)
        return 1
    try:
        uid, gid = _number("MAIL_UID", arguments.mail_uid), _number("MAIL_GID", arguments.mail_gid)
    except ValueError as error:
        print(f"setup: cannot start: {error}", file=sys.stderr)
        return EXIT_WRONG_SETTING
    try:
        folders = apply.hold_volumes(arguments.root, places(uid, gid))
        owners = [(room, uid_of(room, uid), gid_of(room, gid)) for room in ROOMS]
        made = apply.hold_secrets(arguments.root, owners)
        if folders or made:
            # After a power cut Docker starts the rooms again, but not this: what they were given must be there.
            os.sync()
    except OSError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    if folders:
        print(f"setup: put right {len(folders)} folders: {', '.join(folders)}")
    if made:
        print(f"setup: made {len(made)} secrets")
    if not folders and not made:
        print("setup: nothing to change")
    return 0


def _number(name: str, text: str) -> int:
    """A uid or gid that mail may belong to; raises ValueError with the owner's line."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65_533 or int(text) in RESERVED_UIDS:
        taken = ", ".join(str(number) for number in sorted(RESERVED_UIDS))
        raise ValueError(
            f"{name}={text!r} (env/ports.env) is not allowed: a whole number from 1 to 65533, not one of {taken}"
        )
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
