"""Who owns an SMTP server session in tests: answers each of its events, and keeps what it saw and said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from services.protocol import reply as replies
from services.protocol import smtp_events as events
from services.protocol.reply import Reply
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_session import SmtpSession

OFFER = Offer("mail.test", 1000, starttls=True, max_errors=100)


@dataclass
class Owner:
    """Answers every event yes, except where `refuse` has a reply for its type; keeps what it saw."""

    session: SmtpSession
    refuse: dict[type, Reply] = field(default_factory=dict)
    seen: list[Any] = field(default_factory=list)
    body: bytes = b""
    said: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """The bytes said in answer to `data`."""
        self.session.receive(data)
        before = len(self.said)
        while (event := self.session.next_event()) is not None:
            if isinstance(event, events.Chunk):
                self.body += event.data
            else:
                self.seen.append(event)
                if isinstance(event, events.Bdat):
                    self.session.begin_chunks(self.refuse.get(events.Bdat))
                elif not isinstance(event, events.Spoilt):
                    self.said += self.session.send(self.refuse.get(type(event)) or self.yes(event))
        return self.said[before:]

    def yes(self, event: events.Event) -> Reply:
        match event:
            case events.Answer(reply):
                return reply
            case events.Hello():
                return self.session.extensions()
            case events.StartTls():
                return replies.READY_FOR_TLS
            case events.Authenticate():
                return replies.AUTHENTICATED
            case events.XClient():
                return replies.greeting("mail.test")
            case events.Data():
                return replies.START_BODY
            case events.EndOfBody(_, fault) | events.EndOfChunk(_, fault):
                return fault or replies.OK
            case events.Quit():
                return replies.goodbye("mail.test")
        return replies.OK

    @property
    def codes(self) -> list[int]:
        """The codes said so far, one a reply."""
        return [int(line[:3]) for line in self.said.splitlines() if line[3:4] == b" "]


def greeted(offer: Offer = OFFER, *, hello: bool = True, secured: bool = False) -> Owner:
    owner = Owner(SmtpSession(offer, secured=secured))
    owner.session.greet()
    if hello:
        owner.feed(b"LHLO client\r\n" if offer.lmtp else b"EHLO client\r\n")
        owner.said, owner.seen = b"", []
    return owner
