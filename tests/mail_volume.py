"""A mail volume with one account and its store, for tests: `House` opens it, `texts` and `flags` say what is in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from services.storage.account import AccountStore
from services.storage.cache import Octets, Parsed, Parser
from services.storage.mailbox import Mailbox
from services.storage.notifier import Change, LocalNotifier

ANNA = "anna@family.example"


def parse(octets: Octets) -> Parsed:
    """A parser of a few lines: the real one is the imap room's."""
    raw = bytes(octets[:])
    header, _, _ = raw.partition(b"\r\n\r\n")
    fields = {}
    for line in header.split(b"\r\n"):
        name, colon, _ = line.partition(b":")
        if colon and name.lower() in (b"subject", b"from", b"date"):
            fields[name.decode().lower()] = line + b"\r\n"
    return Parsed(
        size=len(raw),
        header_size=len(header) + 4,
        envelope=b"(" + fields.get("subject", b"NIL") + b")",
        bodystructure=b"(structure)",
        body=b"(body)",
        parts=b"parts",
        sent=12345,
        preview="préview",
        fields=fields,
    )


PARSER = Parser(1, parse)


@dataclass
class House:
    """The volumes, and how to open the account."""

    base: Path
    parser: Parser = PARSER
    changes: list[Change] = field(default_factory=list)
    time: float = 1_800_000_000.0
    stores: list[AccountStore] = field(default_factory=list)
    quota: int = 0
    dropped: int = 0
    room: bool = True

    @property
    def mail(self) -> str:
        return str(self.base / "mail")

    @property
    def maildir(self) -> Path:
        return self.base / "mail/family.example/anna"

    @property
    def state(self) -> Path:
        return self.base / "state/family.example/anna"

    def clock(self) -> float:
        self.time += 0.001
        return self.time

    def open(self) -> AccountStore:
        notifier = LocalNotifier()
        notifier.subscribe(ANNA, "", self.changes.append)
        store = AccountStore.open(
            self.mail, str(self.base / "state"), ANNA,
            parser=self.parser, notifier=notifier, clock=self.clock,
            quota_octets=lambda: self.quota, has_room=lambda: self.room, host="test",
        )  # fmt: skip
        self.stores.append(store)
        return store

    def drop(
        self, text: bytes = b"Subject: x\r\n\r\nbody\r\n", name: str = "", folder: str = "", where: str = "new"
    ) -> str:
        """A message by another program."""
        self.dropped += 1
        name = name or f"{1_700_000_000 + self.dropped}.M{os.urandom(3).hex()}.other"
        (self.maildir / folder / where / name).write_bytes(text)
        return name


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def texts(mailbox: Mailbox) -> dict[int, bytes]:
    return {uid: message.read() for uid, message in mailbox.bodies(list(mailbox.uids))}


def flags(mailbox: Mailbox) -> dict[int, bytes]:
    return {uid: mailbox.flag_text(bits) for uid, bits in zip(mailbox.uids, mailbox.flags, strict=True)}
