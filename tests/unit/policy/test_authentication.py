"""Results of the checks in the words of Authentication-Results."""

from services.message.arc import ArcResult
from services.message.authentication_results import value
from services.message.dkim_verify import DkimResult
from services.policy import authentication
from services.policy.dmarc import DmarcResult
from services.policy.peer import PeerName
from services.policy.spf import SpfResult


def test_each_method_as_it_is_written() -> None:
    good = DkimResult("pass", "example.org", "s1", "@example.org", "rsa-sha256", 2048, "", True, mark="AbCdEfGh")
    bad = DkimResult(
        "fail", "example.net", "s2", "joe@example.net", "ed25519-sha256", problem="the signature has expired"
    )
    written = value(
        "mx.home.example",
        [
            authentication.spf(SpfResult("pass", "example.org", "mfrom"), "joe@example.org", "mail.example.org"),
            *authentication.dkim([good, bad]),
            authentication.dmarc(DmarcResult("fail", "quarantine", "example.org")),
            authentication.iprev(PeerName(("mail.example.org",), "mail.example.org"), "192.0.2.1"),
        ],
    )
    assert written == (
        "mx.home.example; spf=pass smtp.mailfrom=joe@example.org; "
        "dkim=pass header.d=example.org header.s=s1 header.a=rsa-sha256 header.b=AbCdEfGh; "
        'dkim=fail reason="the signature has expired" header.d=example.net header.i=joe@example.net header.s=s2 '
        "header.a=ed25519-sha256; "
        "dmarc=fail header.from=example.org policy.dmarc=quarantine; "
        "iprev=pass policy.iprev=192.0.2.1"
    )


def test_what_was_not_found() -> None:
    assert value("mx", authentication.dkim([])) == "mx; dkim=none"
    nothing = authentication.spf(
        SpfResult("none", "mail.example.org", "helo", problem="no record"), "", "mail.example.org"
    )
    assert value("mx", [nothing]) == 'mx; spf=none reason="no record" smtp.helo=mail.example.org'
    assert (
        value("mx", [authentication.dmarc(DmarcResult("none", from_domain="a.test"))])
        == "mx; dmarc=none header.from=a.test"
    )


def test_names_of_the_peer() -> None:
    for peer, outcome in (
        (PeerName(problem="no name"), "permerror"),
        (PeerName(("a.test",), problem="it does not lead back"), "fail"),
        (PeerName(problem="DNS was away", temporary=True), "temperror"),
    ):
        result = authentication.iprev(peer, "2001:db8::1")
        assert (result.result, result.reason, result.of("policy.iprev")) == (outcome, peer.problem, "2001:db8::1")


def test_a_stranger_cannot_add_a_result() -> None:
    sender = '"x; dmarc=pass"@example.org\r\nX: y'
    written = value("mx", [authentication.spf(SpfResult("fail", "example.org", "mfrom"), sender, "helo")])
    assert written == 'mx; spf=fail smtp.mailfrom="\\"x; dmarc=pass\\"@example.org??X: y"'


def test_chains() -> None:
    passed = authentication.arc(ArcResult("pass", ("list.example",), (), 0), "192.0.2.1")
    assert value("mx", [passed]) == "mx; arc=pass smtp.remote-ip=192.0.2.1 header.oldest-pass=0"
    failed = authentication.arc(ArcResult("fail", problem="a seal is gone"), "192.0.2.1")
    assert value("mx", [failed]) == 'mx; arc=fail reason="a seal is gone" smtp.remote-ip=192.0.2.1'
