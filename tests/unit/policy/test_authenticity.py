"""The table of what proofs are worth: SPF × DKIM × DMARC × what the owner wants, each combination."""

import itertools
from dataclasses import replace

import pytest

from services.message.arc import ArcResult
from services.message.dkim_verify import DkimResult
from services.policy import dnsbl, junk, peer
from services.policy.authenticity import Proofs, Wishes, worth
from services.policy.dmarc import DmarcResult
from services.policy.intake import Found, message
from services.policy.method_results import results
from services.policy.peer import PeerName
from services.policy.score import Scale
from services.policy.spf import SpfResult
from services.policy.verdict import Reason, total

SPF = {
    name: SpfResult(name, "far.test", "mfrom", "-all", problem="far.test has no SPF record")  # type: ignore[arg-type]
    for name in ("pass", "fail", "softfail", "neutral", "none", "temperror", "permerror")
}
NONE: tuple[DkimResult, ...] = ()
OWN = (DkimResult("pass", "far.test", "s", counts_for_alignment=True),)
LENGTH = (DkimResult("pass", "far.test", "s"),)  # l=: passes and vouches for nothing
OTHER = (DkimResult("pass", "other.test", "s", counts_for_alignment=True),)
BROKEN = (DkimResult("fail", "far.test", "s", problem="changed"),)
UNKNOWN = (DkimResult("temperror", "far.test", "s", problem="no answer"),)
DKIM = {"none": NONE, "own": OWN, "length": LENGTH, "other": OTHER, "broken": BROKEN, "unknown": UNKNOWN}


def dmarc(result: str, policy: str = "none") -> DmarcResult:
    by = "dkim" if result == "pass" else ""
    return DmarcResult(result, policy, "far.test", aligned_by=by, aligned_domain="far.test", problem="why")  # type: ignore[arg-type]


DMARC = {
    "no author": None, "pass": dmarc("pass", "reject"), "none": dmarc("none"), "temperror": dmarc("temperror"),
    "permerror": dmarc("permerror"), "fail none": dmarc("fail"), "fail quarantine": dmarc("fail", "quarantine"),
    "fail reject": dmarc("fail", "reject"),
}  # fmt: skip
SPF_FAIL, DMARC_FAIL = ("junk", "reject", "tag"), ("junk", "reject", "honor", "tag")
EVERY = list(itertools.product(SPF, DKIM, DMARC, SPF_FAIL, DMARC_FAIL))


def expected(spf: str, dkim: str, author: str, spf_fail: str, dmarc_fail: str) -> str:
    """The module's table again, in the words of a person who reads it."""
    by_dmarc = by_spf = 0  # 0 taken, 1 junk, 2 refused
    if author == "fail quarantine":
        by_dmarc = {"junk": 1, "reject": 2, "honor": 1, "tag": 0}[dmarc_fail]
    if author == "fail reject":
        by_dmarc = {"junk": 1, "reject": 2, "honor": 2, "tag": 0}[dmarc_fail]
    if spf == "fail":
        forwarded = author == "pass" or (dkim == "own" and author not in ("fail quarantine", "fail reject"))
        by_spf = 0 if forwarded else {"junk": 1, "reject": 2, "tag": 0}[spf_fail]
    worst = max(by_spf, by_dmarc)
    if worst == 2 and (spf == "temperror" or dkim == "unknown"):
        worst = 1
    return ("accept", "junk", "reject")[worst]


def test_every_combination() -> None:
    for spf, dkim, author, spf_fail, dmarc_fail in EVERY:
        given = f"SPF {spf}, DKIM {dkim}, DMARC {author}, SPF_FAIL={spf_fail}, DMARC_FAIL={dmarc_fail}"
        found = worth(Proofs(SPF[spf], DKIM[dkim], DMARC[author]), Wishes(spf_fail, dmarc_fail))
        assert found.action == expected(spf, dkim, author, spf_fail, dmarc_fail), given
        assert found.settled is (found.action != "accept"), given
        assert (found.reply is not None) is (found.action == "reject"), given
        # The points tell the same as the decision.
        assert (total(found.reasons) >= 5) is (found.action != "accept"), (given, found.reasons)
        rules = [reason.rule for reason in found.reasons]
        assert rules[0] == f"spf-{spf}", given
        assert ("dkim-none" in rules) is (dkim == "none"), given


def test_the_defaults_refuse_nothing() -> None:
    for spf, dkim, author in itertools.product(SPF, DKIM, DMARC):
        assert worth(Proofs(SPF[spf], DKIM[dkim], DMARC[author]), Wishes()).action != "reject"


@pytest.mark.parametrize(
    ("proofs", "reply"),
    [
        (Proofs(SPF["fail"], NONE, dmarc("none")), "550 5.7.23 far.test does not let this client send its mail (SPF)"),
        (Proofs(SPF["pass"], NONE, dmarc("fail", "reject")), "550 5.7.1 nothing proves that this message is from far.test"),
        (Proofs(SPF["fail"], NONE, dmarc("fail", "reject")), "550 5.7.1 nothing proves"),
        (
            Proofs(SpfResult("fail", "far.test", "mfrom", "-all", "see http://far.test/")),
            "550 5.7.23 far.test does not let this client send its mail (SPF) / far.test explains: see http://far.test/",
        ),
        (Proofs(SPF["pass"], OWN, dmarc("pass"), two_froms=True), "550 5.7.1 the message has more than one From"),
    ],
)  # fmt: skip
def test_what_the_peer_hears(proofs: Proofs, reply: str) -> None:
    assert str(worth(proofs, Wishes("reject", "honor")).reply).startswith(reply)


@pytest.mark.parametrize(
    ("signer", "author", "spf_domain", "excused"),
    [
        ("far.test", "far.test", "bounces.far.test", True),
        ("far.test", "news.far.test", "esp.test", True),
        ("esp.test", "far.test", "bounce.esp.test", True),
        ("esp.test", "far.test", "other.test", False),
        ("test", "far.test", "far.test", True),  # nobody has that key but who runs the zone
        ("ar.test", "far.test", "far.test", False),
        ("", "far.test", "far.test", False),
    ],
)
def test_whose_signature_excuses_a_failed_spf(signer: str, author: str, spf_domain: str, excused: bool) -> None:
    proofs = Proofs(
        SpfResult("fail", spf_domain, "mfrom", "-all"),
        (DkimResult("pass", signer, "s", counts_for_alignment=True),),
        DmarcResult("none", from_domain=author),
    )
    assert (worth(proofs, Wishes()).action == "accept") is excused


def test_a_sealer_that_the_owner_trusts_excuses_dmarc_but_not_spf() -> None:
    arc = ArcResult("pass", ("list.test",))
    vouched = "list.test, whose word counts here, says that dmarc passed for far.test there"
    listed = Proofs(SPF["pass"], BROKEN, dmarc("fail", "reject"), arc, vouched_by=vouched)
    found = worth(listed, Wishes(dmarc_fail="reject"))
    assert (found.action, total(found.reasons)) == ("accept", 0)
    assert "list.test" in next(each.text for each in found.reasons if each.rule == "dmarc-fail-reject")
    unsealed = Proofs(SPF["pass"], BROKEN, dmarc("fail", "reject"), arc)
    assert worth(unsealed, Wishes(dmarc_fail="reject")).action == "reject"
    bad = Proofs(SPF["pass"], BROKEN, dmarc("none"), ArcResult("fail", problem="set 2 is missing"))
    assert any(each.rule == "arc-fail" for each in worth(bad, Wishes()).reasons)


def test_a_from_that_programs_read_differently_weighs_unless_it_is_proven() -> None:
    doubt = Proofs(SPF["pass"], NONE, dmarc("none"), unclear="From cannot be read as an address")
    assert total(worth(doubt, Wishes()).reasons) == 2
    proven = Proofs(SPF["pass"], OWN, dmarc("pass"), unclear="From has addresses of several domains")
    assert total(worth(proven, Wishes()).reasons) == 0


@pytest.mark.parametrize(
    ("displayed", "weight"),
    [((), 0), (("bank.test",), 1), (("mail.far.test",), 0), (("test",), 0), (("bank.test", "b.test"), 1)],
)
def test_a_name_that_is_somebody_elses_address_weighs_even_where_from_is_proven(
    displayed: tuple[str, ...], weight: float
) -> None:
    found = worth(Proofs(SPF["pass"], OWN, dmarc("pass"), displayed=displayed), Wishes())
    assert total(found.reasons) == weight
    shown = [each.text for each in found.reasons if each.rule == "from-shows-another"]
    assert shown == (["the name in From shows an address of bank.test, but it is from far.test"] if weight else [])
    assert not any(
        each.rule == "from-shows-another" for each in worth(Proofs(SPF["pass"], displayed=displayed), Wishes()).reasons
    )


def test_a_client_that_is_not_known_costs_nothing() -> None:
    unknown = Proofs(SpfResult("none", "", "mfrom", problem="not known"), NONE, dmarc("none"), client_known=False)
    assert total(worth(unknown, Wishes("reject", "reject")).reasons) == 0
    # SPF, which could not be asked, might have proven what DMARC misses.
    found = worth(replace(unknown, dmarc=dmarc("fail", "reject")), Wishes("reject", "reject"))
    assert (found.action, found.settled, found.reasons[-1].rule) == ("junk", True, "client-unknown")


@pytest.mark.parametrize(
    ("spf", "dkim", "author", "vouched"),
    [
        ("pass", NONE, "none", True), ("fail", OWN, "none", True), ("fail", NONE, "pass", True),
        ("pass", NONE, "fail none", False), ("fail", OTHER, "none", False), ("none", LENGTH, "none", False),
        ("pass", NONE, "no author", False),
    ],
)  # fmt: skip
def test_who_is_who_it_says(spf: str, dkim: tuple[DkimResult, ...], author: str, vouched: bool) -> None:
    assert Proofs(SPF[spf], dkim, DMARC[author]).vouched is vouched


# --- points


def test_an_unclear_from_is_nobodys() -> None:
    # `From: <@far.test:friend@bank.test>`: SPF and DKIM are of the first, programs show the second.
    clear = Proofs(SPF["pass"], OWN, DMARC["permerror"])
    assert clear.vouched and not replace(clear, unclear="From has addresses of several domains").vouched


@pytest.mark.parametrize(
    ("sender", "spf", "dkim", "author", "doubtful"),
    [
        ("a@far.test", "pass", NONE, "none", False),
        ("a@far.test", "pass", NONE, "fail none", True),  # From is another's
        ("a@far.test", "none", NONE, "none", False),  # a small server that publishes nothing
        ("a@far.test", "neutral", NONE, "no author", False),
        ("a@far.test", "temperror", NONE, "none", False),
        ("a@far.test", "softfail", NONE, "none", True),
        ("a@far.test", "fail", NONE, "none", True),
        ("a@far.test", "fail", OWN, "pass", False),  # forwarded, and signed by the envelope's domain
        ("a@bounces.far.test", "none", OWN, "pass", False),
        # Whoever signs for a From of their own may still have named a stranger in MAIL.
        ("victim@other.test", "fail", OWN, "pass", True),
        ("victim@other.test", "softfail", OWN, "pass", True),
        ("victim@other.test", "none", OWN, "pass", True),
        ("victim@other.test", "none", LENGTH, "pass", True),
    ],
)
def test_who_may_be_written_to(
    sender: str, spf: str, dkim: tuple[DkimResult, ...], author: str, doubtful: bool
) -> None:
    assert Proofs(SPF[spf], dkim, DMARC[author]).doubtful(sender) is doubtful


def test_what_only_says_badly_set_up_never_makes_junk_together() -> None:
    """A friend's home server: no PTR, a HELO name without address, no SPF, no DKIM, no DMARC."""
    server = [
        peer.NO_PTR, peer.HELO_NO_ADDRESS,
        total(worth(Proofs(SPF["none"], NONE, dmarc("none")), Wishes()).reasons), junk.FIRST_TIME.weight,
    ]  # fmt: skip
    assert sum(server) < 5
    worst = [
        peer.NO_PTR,
        peer.HELO_BARE,
        total(worth(Proofs(SPF["permerror"], BROKEN, dmarc("permerror")), Wishes()).reasons),
    ]
    assert sum(worst) < 5
    assert dnsbl.MAX_WEIGHT > 5


@pytest.mark.parametrize(
    ("junk_score", "reject_score", "score", "outcome"),
    [("5.0", "", 4.99, "accept"), ("5.0", "", 5.0, "junk"), ("5.0", "", 500, "junk"), ("5", "15", 14.9, "junk"),
     ("5", "15", 15, "reject"), ("0", "", 0, "junk")],
)  # fmt: skip
def test_thresholds(junk_score: str, reject_score: str, score: float, outcome: str) -> None:
    assert Scale.of(junk_score, reject_score).outcome(score) == outcome


def test_points_add_up_without_rounding_faults() -> None:
    assert total([Reason("a", "", 0.1)] * 3) == 0.3


TAKEN = worth(Proofs(SPF["pass"], OWN, dmarc("pass")), Wishes())
FORGED = worth(Proofs(SPF["fail"], NONE, dmarc("none")), Wishes())


@pytest.mark.parametrize(
    ("found", "outcome", "reply", "settled"),
    [
        (Found(TAKEN), "accept", "None", False),
        (Found(FORGED), "junk", "None", True),
        (Found(TAKEN, (Reason("dnsbl-x", "listed", 6),)), "junk", "None", False),
        (Found(TAKEN, (Reason("dnsbl-x", "listed", 16),)), "reject", "550 5.7.1 the message looks like junk", False),
        (Found(TAKEN, virus="Eicar"), "reject", "550 5.7.1 a virus was found in it: Eicar", True),
        (Found(TAKEN, virus="Eicar", refuse_virus=False), "junk", "None", True),
        (Found(FORGED, limit=Reason("rate-sender", "too many")), "defer", "451 4.7.1", False),
        (Found(TAKEN, wait_for_scanner=True), "defer", "451 4.3.0", False),
        (Found(FORGED, virus="Eicar"), "reject", "550 5.7.1 a virus", True),
    ],
)
def test_what_is_done(found: Found, outcome: str, reply: str, settled: bool) -> None:
    verdict = message(1, places=1, been_there=0, found=found, scale=Scale(5, 15))
    assert (verdict.outcome, verdict.settled) == (outcome, settled)
    assert str(verdict.reply).startswith(reply)


def test_a_loop_is_a_loop_whatever_it_looks_like() -> None:
    assert message(51, places=1, been_there=0, found=Found(FORGED)).rules == "hops"
    assert message(1, places=1, been_there=1, found=Found(FORGED)).rules == "loop"
    assert message(1, places=2, been_there=1, found=Found(FORGED)).rules.endswith(" loop")


def test_what_holds_explains_nothing() -> None:
    verdict = message(1, places=1, been_there=0, found=Found(TAKEN))
    assert verdict.reason == ""
    assert verdict.rules == "spf-pass dkim-pass dmarc-pass"


# --- Authentication-Results


def test_results() -> None:
    proofs = Proofs(
        SPF["fail"],
        (DkimResult("pass", "far.test", "s1", "@far.test", "rsa-sha256", mark="abcdefgh"),),
        dmarc("fail", "reject"),
        ArcResult("pass", ("list.test",), oldest_pass=1),
    )
    found = results(
        proofs,
        sender="a@far.test",
        helo="mx.far.test",
        client="192.0.2.1",
        name=PeerName(("mx.far.test",), "mx.far.test"),
    )
    assert [(each.method, each.result) for each in found] == [
        ("iprev", "pass"), ("spf", "fail"), ("dkim", "pass"), ("dmarc", "fail"), ("arc", "pass"),
    ]  # fmt: skip
    assert found[0].of("policy.iprev") == "192.0.2.1"
    assert found[1].of("smtp.mailfrom") == "a@far.test"
    assert (found[2].of("header.d"), found[2].of("header.b")) == ("far.test", "abcdefgh")
    assert (found[3].of("header.from"), found[3].of("policy.dmarc")) == ("far.test", "reject")
    assert found[4].of("header.oldest-pass") == "1"


def test_results_of_a_bounce_from_nobody_known() -> None:
    proofs = Proofs(SpfResult("none", "mx.far.test", "helo", problem="not known"), client_known=False)
    found = results(proofs, sender="", helo="mx.far.test", client="", name=None)
    assert [(each.method, each.result) for each in found] == [("spf", "none"), ("dkim", "none")]
    assert found[0].of("smtp.helo") == "mx.far.test"
