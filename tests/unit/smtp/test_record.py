"""What the engine writes into the record by itself."""

from typing import Any

from services.protocol import reply as replies
from services.smtp.record import Record


class Kept:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        self.events.append((kind, trace, outcome))

    def flush(self) -> None:
        pass


def test_a_refusal_is_told_by_its_reply_and_a_data_without_recipients_decides_nothing() -> None:
    kept = Kept()
    record = Record(kept, "conn")
    record.refusal("RCPT", replies.mailbox_unavailable("a@b.test"), "message")
    record.refusal("MAIL", replies.INSUFFICIENT_STORAGE, "message")
    record.refusal("DATA", replies.NO_RECIPIENTS, "message")
    assert kept.events == [("rcpt", "message", "reject"), ("mail", "message", "defer"), ("data", "message", "info")]
