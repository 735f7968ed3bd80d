"""What docker-mailserver leaves on disk, as its users have it: mail of one account with marks and folders, two lists.

The layout is its documented one (docker-data/dms/{mail-data,config}); messages have LF lines, as Dovecot writes them.
"""

import imaplib
import os
import re
from pathlib import Path

OWNER = 5000  # uid and gid of its mail
ANN = "ann@moved.example.org"
# Folder, file name and text: flags of the Maildir in the names, Dovecot's sizes too.
MESSAGES = {
    (
        "",
        "cur/1700000000.M1P1.old,S=62,W=66:2,S",
    ): b"From: a@far.test\nSubject: read\nMessage-ID: <1@far.test>\n\nOne.\n",
    ("", "new/1700000001.M2P1.old"): b"From: a@far.test\nSubject: unread\nMessage-ID: <2@far.test>\n\nTwo.\n",
    (".Sent", "cur/1700000002.M3P1.old:2,RS"): b"From: me@moved.example.org\nSubject: sent\n\nThree.\n",
    (".Archive.2024", "cur/1700000003.M4P1.old:2,FS"): b"Subject: kept\n\nFour.\n",
}
# What a client must see: folder → subject → its marks.
MARKS = {
    "INBOX": {"read": {"\\Seen"}, "unread": set()},
    "Sent": {"sent": {"\\Answered", "\\Seen"}},
    "Archive.2024": {"kept": {"\\Flagged", "\\Seen"}},
}


def seen_in(client: imaplib.IMAP4, folder: str) -> dict[str, set[str]]:
    """Subject → marks of each message, \\Recent left out; texts have CRLF whatever is on disk."""
    assert client.select(folder, readonly=True)[0] == "OK"
    _, fetched = client.fetch("1:*", "(FLAGS BODY.PEEK[])")
    found = {}
    for head, text in (part for part in fetched if isinstance(part, tuple)):
        assert b"\n" not in text.replace(b"\r\n", b"")
        subject = re.search(rb"Subject: (\w+)\r\n", text)
        assert subject
        found[subject[1].decode()] = {flag.decode() for flag in imaplib.ParseFlags(head)} - {"\\Recent"}
    return found


def leave_behind(folder: Path) -> None:
    """Make `folder`/docker-data/dms."""
    data = folder / "docker-data" / "dms"
    config, maildir = data / "config", data / "mail-data" / "moved.example.org" / "ann"
    config.mkdir(parents=True)
    (config / "postfix-accounts.cf").write_text(
        f"{ANN}|{{SHA512-CRYPT}}$6$abc$def\nben@moved.example.org|{{SHA512-CRYPT}}x\n"
    )
    (config / "postfix-virtual.cf").write_text(f"# aliases\nfamily@moved.example.org {ANN},ben@moved.example.org\n")
    for name in ("", ".Sent", ".Archive.2024"):
        for part in ("cur", "new", "tmp"):
            (maildir / name / part).mkdir(parents=True)
        (maildir / name / "dovecot-uidlist").write_text("3 V1700000000 N9 G0123\n")
    (maildir / "subscriptions").write_text("V\t2\n\nSent\nArchive.2024\n")
    for (name, path), text in MESSAGES.items():
        (maildir / name / path).write_bytes(text)
    for parent, folders, files in os.walk(data / "mail-data"):
        for each in (parent, *(os.path.join(parent, name) for name in folders + files)):
            os.chown(each, OWNER, OWNER)
            os.chmod(each, 0o700 if os.path.isdir(each) else 0o600)
