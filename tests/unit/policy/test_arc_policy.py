"""Whose word about an earlier hop counts: the owner's sealers, from the last hop down, and for the author's domain."""

import pytest

from services.message.arc import ArcResult, Sealed
from services.message.authentication_results import parse
from services.message.dkim_verify import Signature
from services.policy.arc import vouched
from services.policy.dmarc import DmarcResult

FAILED = DmarcResult("fail", "reject", "news.example.org", "example.org", "v=DMARC1; p=reject")


def chain(*sets: tuple[str, str], result: str = "pass") -> ArcResult:
    """(sealer, what it found), the first sealer first."""
    made = tuple(
        Sealed(number, parse(b"mx; " + text.encode()), Signature(0), Signature(0, domain=domain), "pass", (0, 1, 2))
        for number, (domain, text) in enumerate(sets, 1)
    )
    return ArcResult(result, tuple(domain for domain, _ in sets), made)  # type: ignore[arg-type]


PASSED = "dmarc=pass header.from=news.example.org"

# (what, sets, who vouches by what)
CASES = [
    ("DMARC passed there", [("list.example", PASSED)], "dmarc"),
    ("DMARC passed for another", [("list.example", "dmarc=pass header.from=evil.example")], ""),
    ("DMARC failed there", [("list.example", "dmarc=fail header.from=news.example.org")], ""),
    ("DKIM of the author's domain", [("list.example", "dkim=pass header.d=news.example.org")], "dkim"),
    ("DKIM of its organization", [("list.example", "dkim=pass header.i=@mail.example.org")], "dkim"),
    ("DKIM of another", [("list.example", "dkim=pass header.d=badexample.org")], ""),
    ("DKIM without a domain", [("list.example", "dkim=pass")], ""),
    ("DKIM that failed", [("list.example", "dkim=fail header.d=news.example.org")], ""),
    ("SPF of its organization", [("list.example", "spf=pass smtp.mailfrom=joe@example.org")], "spf"),
    ("SPF of another", [("list.example", "spf=pass smtp.mailfrom=joe@evil.example")], ""),
    ("nothing", [("list.example", "none")], ""),
    ("an unknown sealer", [("unknown.example", PASSED)], ""),
    ("a name below a sealer that counts", [("sub.list.example", PASSED)], ""),
    ("two that count: the first one's word", [("list.example", PASSED), ("other.example", "dmarc=fail")], "dmarc"),
    ("a stranger after it", [("list.example", PASSED), ("unknown.example", PASSED)], ""),
    ("a stranger before it, whose word it repeats not",
     [("unknown.example", PASSED), ("list.example", "dmarc=fail header.from=news.example.org")], ""),
    ("a stranger before it, and its own word", [("unknown.example", "none"), ("list.example", PASSED)], "dmarc"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "sets", "method"), CASES, ids=[case[0] for case in CASES])
def test_who_vouches(what: str, sets: list[tuple[str, str]], method: str) -> None:
    said = vouched(chain(*sets), frozenset({"list.example", "other.example"}), FAILED)
    assert bool(said) == bool(method), said
    if method:
        assert f"says that {method} passed for news.example.org" in said


def test_without_a_chain_or_an_author_nobody_vouches() -> None:
    trusted = frozenset({"list.example"})
    assert not vouched(chain(("list.example", PASSED), result="fail"), trusted, FAILED)
    assert not vouched(ArcResult("none"), trusted, FAILED)
    assert not vouched(chain(("list.example", PASSED)), frozenset(), FAILED)
    odd = DmarcResult("fail", "reject", "news.example.org", "example.org", problem="there is more than one From")
    assert not vouched(chain(("list.example", PASSED)), trusted, odd)


def test_strict_alignment_holds_there_too() -> None:
    strict = DmarcResult("fail", "reject", "news.example.org", "example.org", "v=DMARC1; p=reject; adkim=s; aspf=s")
    trusted = frozenset({"list.example"})
    assert not vouched(chain(("list.example", "dkim=pass header.d=example.org")), trusted, strict)
    assert not vouched(chain(("list.example", "spf=pass smtp.mailfrom=example.org")), trusted, strict)
    assert vouched(chain(("list.example", "dkim=pass header.d=news.example.org")), trusted, strict)


def test_results_that_cannot_be_read_vouch_for_nothing() -> None:
    unread = Sealed(1, None, Signature(0), Signature(0, domain="list.example"), "none", (0, 1, 2))
    assert not vouched(ArcResult("pass", ("list.example",), (unread,)), frozenset({"list.example"}), FAILED)
