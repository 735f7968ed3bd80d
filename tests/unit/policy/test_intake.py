"""What smtp-in decides, as tables."""

import pytest

from services.directory.models import Account
from services.policy import intake
from services.policy.routes import NotLocal, Routing, Unknown
from services.policy.verdict import Reason, Verdict

ANNA = Account("anna@a.test", "a.test", "anna")
GONE = Account("gone@a.test", "a.test", "gone", enabled=False)


@pytest.mark.parametrize(
    ("found", "outcome", "reply", "rule"),
    [
        (Routing((ANNA,)), "accept", "250 2.1.5", ""),
        (Routing((), ("out@far.test",)), "accept", "250 2.1.5", ""),
        (Routing((ANNA, GONE)), "accept", "250 2.1.5", "disabled-target"),
        (Routing((GONE,), ("out@far.test",)), "accept", "250 2.1.5", "disabled-target"),
        (Routing((ANNA,), (), ("lost@a.test",)), "accept", "250 2.1.5", "dead-target"),
        (Routing((GONE,)), "reject", "550 5.2.1", "disabled"),
        (Unknown("x@a.test", "why"), "reject", "550 5.1.1", "unknown-recipient"),
        (NotLocal("x@far.test"), "reject", "550 5.7.1", "not-local"),
        (None, "defer", "451 4.3.0", "no-directory"),
    ],
)
def test_recipients(found: object, outcome: str, reply: str, rule: str) -> None:
    verdict = intake.recipient("x@a.test", found)  # type: ignore[arg-type]
    assert (verdict.stage, verdict.outcome, verdict.rules) == ("rcpt", outcome, rule)
    assert str(verdict.reply).startswith(reply)
    assert bool(verdict.reason) is bool(rule)


def test_who_takes_mail() -> None:
    assert intake.takers(Routing((ANNA, GONE))) == (ANNA,)


def test_the_reserve_of_the_disk() -> None:
    assert intake.sender(room_on_disk=True).outcome == "accept"
    assert intake.body_begins(room_on_disk=True).outcome == "accept"
    for verdict in (intake.sender(room_on_disk=False), intake.body_begins(room_on_disk=False)):
        assert (verdict.outcome, str(verdict.reply)[:9]) == ("defer", "452 4.3.1")


@pytest.mark.parametrize(
    ("hops", "places", "been_there", "outcome", "rule"),
    [
        (0, 1, 0, "accept", ""), (50, 1, 0, "accept", ""), (51, 1, 0, "reject", "hops"), (1, 1, 1, "reject", "loop"),
        (1, 2, 1, "accept", "loop"), (1, 2, 2, "reject", "loop"),
    ],
)  # fmt: skip
def test_messages_that_go_round(hops: int, places: int, been_there: int, outcome: str, rule: str) -> None:
    verdict = intake.message(hops, places=places, been_there=been_there)
    assert (verdict.outcome, verdict.rules) == (outcome, rule)


def test_a_verdict_tells_its_reasons() -> None:
    verdict = Verdict("data", "junk", None, (Reason("a", "first", 1.5), Reason("b", "second", 2)))
    assert verdict.accepted
    assert (verdict.reason, verdict.rules) == ("first; second", "a b")
    assert not Verdict("data", "defer").accepted
    assert (intake.connection().outcome, intake.hello().outcome) == ("accept", "accept")
