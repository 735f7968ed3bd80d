"""What leaves the house, whose word is taken, and what is asked of reports on the way: tables."""

import pytest

from services.message.dkim_verify import DkimResult
from services.policy.forwarding import CAME_BACK, JUNK_NOT_FORWARDED, asked_of_forward, leaving, proven
from services.policy.spf import SpfResult
from services.protocol.smtp_parameters import RcptParameters

A, OUT, OTHER, ADMIN = "anna@home.test", "out@far.test", "other@far.test", "admin@home.test"


@pytest.mark.parametrize(
    ("accounts", "forwards", "options", "wanted", "rules"),
    [
        ((A,), (), {"junk": True}, ((A,), (), (), None), ""),
        ((), (OUT,), {}, ((), (OUT,), (), None), ""),
        ((A,), (OUT,), {}, ((A,), (OUT,), (), None), ""),
        ((A,), (OUT,), {"junk": True}, ((A,), (), (), None), "forward-junk"),
        ((), (OUT,), {"junk": True}, ((ADMIN,), (), (ADMIN,), None), "forward-junk forward-kept"),
        ((), (OUT,), {"junk": True, "keep": False}, ((), (), (), JUNK_NOT_FORWARDED), "forward-junk"),
        ((), (OUT,), {"junk": True, "administrator": ""}, ((), (), (), JUNK_NOT_FORWARDED), "forward-junk"),
        ((A,), (OUT,), {"junk": True, "keep": False}, ((A,), (), (), None), "forward-junk"),
        ((), (OUT, OTHER), {"been": {OUT}}, ((), (OTHER,), (), None), "loop"),
        ((A,), (OUT,), {"been": {OUT}}, ((A,), (), (), None), "loop"),
        ((), (OUT,), {"been": {OUT}}, ((), (), (), CAME_BACK), "loop"),
        (
            (),
            (OUT, OTHER),
            {"been": {OUT}, "junk": True},
            ((ADMIN,), (), (ADMIN,), None),
            "loop forward-junk forward-kept",
        ),
    ],
)
def test_what_leaves(accounts, forwards, options, wanted, rules) -> None:  # type: ignore[no-untyped-def]
    found = leaving(accounts, forwards, **{"administrator": ADMIN, **options})
    assert (found.accounts, found.forwards, found.junk, found.reply) == wanted
    assert " ".join(reason.rule for reason in found.reasons) == rules


def spf(result: str, scope: str = "mfrom") -> SpfResult:
    return SpfResult(result, "far.test", scope, "", "", "", 0)  # type: ignore[arg-type]


def dkim(domain: str, result: str = "pass", counts: bool = True) -> DkimResult:
    return DkimResult(result, domain, "s", f"@{domain}", "rsa-sha256", 2048, "", counts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sender", "spf_result", "signatures", "wanted"),
    [
        ("a@far.test", spf("pass"), [], True),
        ("a@far.test", spf("softfail"), [], False),
        ("a@far.test", spf("none"), [], False),
        ("", spf("pass", "helo"), [], False),
        ("a@far.test", spf("pass", "helo"), [], False),
        ("a@far.test", spf("fail"), [dkim("far.test")], True),  # forwarded on its way here
        ("a@news.far.test", spf("fail"), [dkim("far.test")], True),
        ("a@far.test", spf("fail"), [dkim("news.far.test")], False),
        ("a@notfar.test", spf("fail"), [dkim("far.test")], False),
        ("a@far.test", spf("fail"), [dkim("far.test", "fail")], False),
        ("a@far.test", spf("fail"), [dkim("far.test", counts=False)], False),  # l=: the rest may be anybody's
        ("a@far.test", spf("fail"), [dkim("other.test")], False),
        ("a@far.test", None, [], False),
    ],
)
def test_whose_word_is_taken(sender: str, spf_result: SpfResult, signatures: list[DkimResult], wanted: bool) -> None:
    assert proven(sender, spf_result, signatures) is wanted


@pytest.mark.parametrize(
    ("notify", "proven", "places", "wanted"),
    [
        ("", True, 1, ""),
        ("", False, 1, "NEVER"),
        ("SUCCESS,FAILURE", False, 1, "NEVER"),
        ("SUCCESS,FAILURE", True, 1, "SUCCESS,FAILURE"),
        ("SUCCESS,FAILURE", True, 2, "FAILURE"),
        ("SUCCESS", True, 2, "NEVER"),
        ("NEVER", True, 2, "NEVER"),
    ],
)
def test_what_is_asked_of_a_forward(notify: str, proven: bool, places: int, wanted: str) -> None:
    found = asked_of_forward("info+x@home.test", RcptParameters(notify), proven=proven, places=places)
    assert found == RcptParameters(wanted, "rfc822;info+2Bx@home.test")
    given = asked_of_forward("i@home.test", RcptParameters(notify, "rfc822;Me@far.test"), proven=proven, places=places)
    assert given.orcpt == "rfc822;Me@far.test"
