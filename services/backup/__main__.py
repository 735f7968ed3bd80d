"""`python -m services.backup save|check|restore [--force]`: the tar on stdout or stdin, words on stderr.

save     stdin: the env files as a tar;  stdout: the backup
check    stdin: the backup
restore  stdin: the backup;              stdout: the env files as a tar
"""

from __future__ import annotations

import argparse
import sys
import time

from services.backup import restore, save
from services.backup.archive import DamagedBackup

EXIT_NOT_EMPTY = 3  # scripts/restore tells from it that --force would help


def main() -> int:
    """The exit status: 0, 1 with one line on stderr, or EXIT_NOT_EMPTY."""
    parser = argparse.ArgumentParser(prog="python -m services.backup")
    parser.add_argument("what", choices=("save", "check", "restore"))
    parser.add_argument("--root", default="/volumes", help="where the volumes are mounted, by name")
    parser.add_argument("--force", action="store_true", help="restore: empty the volumes first")
    arguments = parser.parse_args()
    try:
        if arguments.what == "save":
            saved = save.save(arguments.root, sys.stdin.buffer, sys.stdout.buffer, time.time())
            sys.stdout.buffer.flush()
            for warning in saved.warnings:
                _say(f"warning: {warning}")
            _say(
                f"saved {saved.accounts} mailboxes with {saved.messages} messages, {saved.queued} queued messages; "
                f"{saved.files} files, {_size(saved.octets)}"
            )
            return 0
        if arguments.what == "check":
            found = restore.check(sys.stdin.buffer)
        else:
            found = restore.restore(arguments.root, sys.stdin.buffer, sys.stdout.buffer, force=arguments.force)
            sys.stdout.buffer.flush()
    except restore.NotEmpty as error:
        _say(f"error: {error}")
        return EXIT_NOT_EMPTY
    except DamagedBackup as error:
        _say(f"error: the backup is damaged: {error}")
        return 1
    except (save.BackupRunning, OSError) as error:
        _say(f"error: {error}")
        return 1
    _say(_told(found, "whole" if arguments.what == "check" else "restored"))
    return 0


def _told(found: restore.Found, word: str) -> str:
    taken = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.created))
    lines = [
        f"{word}: the backup of {taken}, {found.files} files, {_size(found.octets)}",
        f"  {len(found.accounts)} mailboxes with {found.messages} messages: {_names(found.accounts)}",
        f"  {found.queued} queued messages" + (", held" if word == "restored" and found.queued else ""),
        f"  DKIM keys of {_names(found.domains)}",
        f"  settings: {_names(set(found.env))}",
    ]
    return "\n".join(lines)


def _names(names: set[str]) -> str:
    shown = sorted(names)[:20]
    return (", ".join(shown) or "none") + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _size(octets: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
