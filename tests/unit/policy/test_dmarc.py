"""DMARC (RFC 9989): its examples and rules as tables over zones, and how few questions are asked."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.message.dkim_verify import DkimResult
from services.message.from_domain import Authors
from services.policy.dmarc import DmarcResult, check, check_authors
from services.policy.dmarc_record import policy_record
from services.policy.spf import SpfResult
from services.protocol.dns_lookup import Answer, Asking, DnsError, NoAnswer, NoSuchName, TemporaryFailure, answered

Zone = dict[tuple[str, str], Any]
NO_SPF = SpfResult("none", "", "mfrom")


def spf(domain: str, result: str = "pass", scope: str = "mfrom") -> SpfResult:
    return SpfResult(result, domain, scope)  # type: ignore[arg-type]


def dkim(domain: str, result: str = "pass", counts: bool = True) -> DkimResult:
    return DkimResult(result, domain, "s", counts_for_alignment=counts and result == "pass")  # type: ignore[arg-type]


def zone(records: Mapping[str, str | list[str] | DnsError], *, exist: tuple[str, ...] = ()) -> Zone:
    """`{"example.org": "v=DMARC1; ..."}`; the names of `exist` have an address."""
    made: Zone = {}
    for domain, value in records.items():
        texts = [value] if isinstance(value, str) else value
        made[f"_dmarc.{domain}", "TXT"] = texts if isinstance(texts, DnsError) else [text.encode() for text in texts]
    made.update({(name, "A"): ["192.0.2.1"] for name in exist})
    return made


def asked(asking: Asking[DmarcResult], found: Zone) -> tuple[DmarcResult, list[str]]:
    """The result and the questions that it took."""
    questions: list[str] = []

    class Noting(dict):  # type: ignore[type-arg]
        def get(self, key: tuple[str, str], default: Answer | DnsError | None = None) -> Any:
            questions.append(f"{key[1]} {key[0]}")
            return super().get(key, default)

    return answered(asking, Noting(found)), questions


REJECT = "v=DMARC1; p=reject"

# (what, From, identifiers that passed, records, result, policy, organizational domain)
CASES: list[tuple[str, str, list[SpfResult | DkimResult], dict[str, Any], str, str, str]] = [
    # RFC 9989 §4.4, table 1
    ("relaxed: the same organization", "news.example.com", [dkim("foo.example.com")],
     {"example.com": REJECT}, "pass", "reject", "example.com"),
    ("strict: identical", "news.example.com", [dkim("news.example.com")],
     {"example.com": REJECT + "; adkim=s"}, "pass", "reject", "example.com"),
    ("none in common", "news.example.com", [dkim("foo.example.net")],
     {"example.com": REJECT, "example.net": REJECT}, "fail", "reject", "example.com"),
    # Appendix B.1.1 and B.1.2
    ("SPF, identical", "example.com", [spf("example.com")], {"example.com": REJECT}, "pass", "reject", "example.com"),
    ("SPF, the parent signs for the child", "child.example.com", [spf("example.com")],
     {"example.com": REJECT}, "pass", "reject", "example.com"),
    ("SPF of another", "child.example.com", [spf("example.net")],
     {"example.com": REJECT}, "fail", "reject", "example.com"),
    ("SPF, strict and not identical", "child.example.com", [spf("example.com")],
     {"example.com": REJECT + "; aspf=s"}, "fail", "reject", "example.com"),
    ("DKIM, strict and not identical", "example.com", [dkim("mail.example.com")],
     {"example.com": REJECT + "; adkim=s"}, "fail", "reject", "example.com"),
    ("strict for one is not strict for the other", "example.com", [dkim("a.example.com"), spf("b.example.com")],
     {"example.com": REJECT + "; adkim=s"}, "pass", "reject", "example.com"),
    # Appendix B.4.1
    ("B.4.1", "example.com", [dkim("signing.example.com")],
     {"example.com": REJECT, "signing.example.com": "v=DMARC1; p=none"}, "pass", "reject", "example.com"),
    # Appendix B.4.2
    ("B.4.2 SPF", "a.b.c.d.e.f.g.h.i.j.k.example.com", [spf("example.com")],
     {"example.com": REJECT, "signing.example.com": REJECT}, "pass", "reject", "example.com"),
    ("B.4.2 DKIM", "a.b.c.d.e.f.g.h.i.j.k.example.com", [dkim("signing.example.com")],
     {"example.com": REJECT, "signing.example.com": REJECT}, "pass", "reject", "example.com"),
    # Appendix B.4.3
    ("B.4.3 SPF", "giant.bank.example", [spf("mail.giant.bank.example")],
     {"bank.example": REJECT + "; psd=y", "giant.bank.example": "v=DMARC1; p=quarantine"},
     "pass", "quarantine", "giant.bank.example"),
    ("B.4.3 DKIM", "giant.bank.example", [dkim("mail.mega.bank.example")],
     {"bank.example": REJECT + "; psd=y", "giant.bank.example": "v=DMARC1; p=quarantine"},
     "fail", "quarantine", "giant.bank.example"),
    # §4.10.2, its three examples
    ("the record with the fewest labels", "a.mail.example.com", [dkim("x.example.com")],
     {"mail.example.com": "v=DMARC1; p=none", "example.com": REJECT}, "pass", "reject", "example.com"),
    ("psd=n in the middle", "a.mail.example.com", [dkim("x.example.com")],
     {"mail.example.com": "v=DMARC1; p=quarantine; psd=n", "example.com": REJECT},
     "fail", "quarantine", "mail.example.com"),
    ("psd=y at the top alone", "a.mail.example.com", [dkim("x.example.com")],
     {"com": "v=DMARC1; p=reject; psd=y"}, "pass", "reject", "example.com"),
    # psd=y
    ("nobody signed for a name below a public suffix", "one.bank.example", [],
     {"bank.example": REJECT + "; psd=y"}, "fail", "reject", "one.bank.example"),
    ("a public suffix does not join its children", "one.bank.example", [dkim("two.bank.example")],
     {"bank.example": REJECT + "; psd=y"}, "fail", "reject", "one.bank.example"),
    ("a public suffix may send itself", "bank.example", [dkim("bank.example")],
     {"bank.example": REJECT + "; psd=y"}, "pass", "reject", "bank.example"),
    ("... and for names below it is another organization", "bank.example", [dkim("one.bank.example")],
     {"bank.example": REJECT + "; psd=y"}, "fail", "reject", "bank.example"),
    ("an organization's own record goes before its public suffix's", "a.one.bank.example", [],
     {"bank.example": REJECT + "; psd=y", "one.bank.example": "v=DMARC1; p=none"},
     "fail", "none", "one.bank.example"),
    ("a record between them is not the organization's", "a.b.one.bank.example", [],
     {"bank.example": REJECT + "; psd=y", "b.one.bank.example": "v=DMARC1; p=none"},
     "fail", "reject", "one.bank.example"),
    # §4.10.1
    ("the author's own record goes first", "sub.example.com", [],
     {"sub.example.com": "v=DMARC1; p=none", "example.com": REJECT}, "fail", "none", "sub.example.com"),
    ("p= of a record of one's own, never sp=", "sub.example.com", [],
     {"sub.example.com": "v=DMARC1; p=quarantine; sp=reject; np=reject"}, "fail", "quarantine", "sub.example.com"),
    ("no record", "example.com", [dkim("example.com")], {}, "none", "none", "example.com"),
    ("two records are none", "example.com", [], {"example.com": [REJECT, "v=DMARC1; p=none"]},
     "none", "none", "example.com"),
    ("two records at the name, one above", "sub.example.com", [],
     {"sub.example.com": [REJECT, REJECT], "example.com": "v=DMARC1; p=quarantine"},
     "fail", "quarantine", "example.com"),
    ("other texts beside it", "example.com", [], {"example.com": ["v=spf1 -all", REJECT, "hello"]},
     "fail", "reject", "example.com"),
    # identifiers
    ("SPF that did not pass", "example.com", [spf("example.com", "softfail")], {"example.com": REJECT},
     "fail", "reject", "example.com"),
    ("SPF of the null sender", "example.com", [spf("mail.example.com", scope="helo")], {"example.com": REJECT},
     "pass", "reject", "example.com"),
    ("DKIM that failed", "example.com", [dkim("example.com", "fail")], {"example.com": REJECT},
     "fail", "reject", "example.com"),
    ("DKIM with l=", "example.com", [dkim("example.com", counts=False)], {"example.com": REJECT},
     "fail", "reject", "example.com"),
    ("one signature of many", "example.com", [dkim("a.test"), dkim("b.test", "fail"), dkim("mail.example.com")],
     {"example.com": REJECT}, "pass", "reject", "example.com"),
    ("a name that ends alike", "example.com", [dkim("badexample.com")], {"example.com": REJECT},
     "fail", "reject", "example.com"),
    ("d= of a public suffix", "example.com", [dkim("com")], {"example.com": REJECT}, "fail", "reject", "example.com"),
    ("capitals", "EXAMPLE.com", [spf("Mail.Example.COM")], {"example.com": REJECT}, "pass", "reject", "example.com"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "author", "identifiers", "records", "result", "policy", "organization"), CASES, ids=[c[0] for c in CASES]
)
def test_alignment_and_policy(
    what: str,
    author: str,
    identifiers: list[SpfResult | DkimResult],
    records: dict[str, Any],
    result: str,
    policy: str,
    organization: str,
) -> None:
    spfs = [each for each in identifiers if isinstance(each, SpfResult)] or [NO_SPF]
    dkims = [each for each in identifiers if isinstance(each, DkimResult)]
    found = answered(check(author, spfs[0], dkims), zone(records))
    assert (found.result, found.policy) == (result, policy), found
    assert found.from_domain == author.lower()
    if result != "pass" or found.aligned_domain != author.lower():
        assert found.organizational_domain == organization, found
    assert bool(found.aligned_by) == (result == "pass")


# (what, From, its parent's record, whether the name exists, policy)
BELOW = [
    ("p= where there is no other", "reject", "v=DMARC1; p=reject", True),
    ("sp= for a name below", "quarantine", "v=DMARC1; p=reject; sp=quarantine", True),
    ("sp= for one that does not exist, without np=", "quarantine", "v=DMARC1; p=reject; sp=quarantine", False),
    ("np= for one that does not exist", "reject", "v=DMARC1; p=none; sp=quarantine; np=reject", False),
    ("np= not for one that exists", "quarantine", "v=DMARC1; p=none; sp=quarantine; np=reject", True),
    ("np= without sp=", "reject", "v=DMARC1; p=none; np=reject", False),
    ("p= without sp=, where it exists", "none", "v=DMARC1; p=none; np=reject", True),
    ("t=y: one step milder", "quarantine", "v=DMARC1; p=reject; t=y", True),
    ("t=y of quarantine", "none", "v=DMARC1; p=quarantine; t=y", True),
    ("t=y of none", "none", "v=DMARC1; p=none; t=y", True),
    ("t=y of np=", "quarantine", "v=DMARC1; p=none; np=reject; t=y", False),
    ("t=n", "reject", "v=DMARC1; p=reject; t=n", True),
]


@pytest.mark.parametrize(("what", "policy", "record", "exists"), BELOW, ids=[case[0] for case in BELOW])
def test_policies_for_names_below(what: str, policy: str, record: str, exists: bool) -> None:
    found = zone({"example.com": record}, exist=("shop.example.com",) if exists else ())
    result = answered(check("shop.example.com", NO_SPF, []), found)
    assert (result.result, result.policy, result.testing) == ("fail", policy, "t=y" in record), result


def test_a_name_exists_by_any_of_its_records_and_by_what_is_below_it() -> None:
    records = zone({"example.com": "v=DMARC1; p=none; np=reject"})
    for name in ("shop.example.com", "_dmarc.shop.example.com"):
        for kind in ("MX", "TXT"):
            result = answered(check("shop.example.com", NO_SPF, []), {**records, (name, kind): [b"x"]})
            assert result.policy == "none", "RFC 8020: only NXDOMAIN is a name that does not exist"
    broken = {**records, ("shop.example.com", "A"): TemporaryFailure("servfail")}
    assert answered(check("shop.example.com", NO_SPF, []), broken).result == "temperror"


# (what, record, is it one, p, problem)
RECORDS = [
    ("the least", "v=DMARC1", True, "none", False),
    ("a semicolon", "v=DMARC1;", True, "none", False),
    ("blanks about the equals sign", "v = DMARC1 ; p = reject ;", True, "reject", False),
    ("v= in capitals", "V=DMARC1; P=Reject", True, "reject", False),
    ("version in small letters", "v=dmarc1; p=reject", False, "", False),
    ("another version", "v=DMARC2; p=reject", False, "", False),
    ("a version that begins alike", "v=DMARC12; p=reject", False, "", False),
    ("no semicolon after it", "v=DMARC1 p=reject", False, "", False),
    ("a blank before it", " v=DMARC1; p=reject", False, "", False),
    ("v= not first", "p=reject; v=DMARC1", False, "", False),
    ("no v=", "p=reject", False, "", False),
    ("nothing", "", False, "", False),
    ("pct, rf and ri are unknown", "v=DMARC1; p=reject; pct=0; rf=iodef; ri=1", True, "reject", False),
    ("unknown tags", "v=DMARC1; x=y; p=reject; foo", True, "reject", False),
    ("p= anywhere", "v=DMARC1; rua=mailto:a@b.test; p=reject", True, "reject", False),
    ("p= wrong, nobody to report to", "v=DMARC1; p=refuse", True, "none", True),
    ("p= wrong, rua= wrong", "v=DMARC1; p=refuse; rua=nobody", True, "none", True),
    ("p= wrong with rua=", "v=DMARC1; p=refuse; sp=reject; rua=mailto:a@b.test", True, "none", False),
    ("sp= wrong with rua=: as if p=none", "v=DMARC1; p=reject; sp=x; rua=mailto:a@b.test", True, "none", False),
    ("np= wrong without", "v=DMARC1; p=reject; np=x", True, "none", True),
    ("p= empty", "v=DMARC1; p=", True, "none", True),
    ("p= twice: the first", "v=DMARC1; p=none; p=reject", True, "none", False),
    ("alignment that is none: relaxed", "v=DMARC1; p=reject; adkim=x; aspf=", True, "reject", False),
    ("psd= that is none: u", "v=DMARC1; p=reject; psd=x", True, "reject", False),
    ("rua= with a size of RFC 7489", "v=DMARC1; p=x; rua=mailto:a@b.test!10m", True, "none", False),
]


@pytest.mark.parametrize(("what", "text", "is_one", "p", "problem"), RECORDS, ids=[case[0] for case in RECORDS])
def test_records(what: str, text: str, is_one: bool, p: str, problem: bool) -> None:
    record = policy_record([text.encode()])
    assert (record is not None) == is_one
    if record is not None:
        assert (record.p, bool(record.problem)) == (p, problem), record
        assert not record.strict_dkim and not record.strict_spf and record.psd == "u"
    if problem:
        result = answered(check("example.com", NO_SPF, []), zone({"example.com": text}))
        assert (result.result, bool(result.problem)) == ("none", True)


def test_a_walk_asks_at_most_eight_questions() -> None:
    """RFC 9989 §4.10, its example."""
    name = "a.b.c.d.e.f.g.h.i.j.mail.example.com"
    result, questions = asked(check(name, NO_SPF, []), {})
    assert result.result == "none"
    tails = ["g.h.i.j.mail", "h.i.j.mail", "i.j.mail", "j.mail", "mail"]
    assert questions == [
        f"TXT _dmarc.{each}" for each in (name, *(f"{tail}.example.com" for tail in tails), "example.com", "com")
    ]
    long = ".".join(["a" * 63] * 3 + ["b" * 57, "com"])  # 253 characters, so that nothing fits before it
    assert len(long) == 253 and asked(check(long, NO_SPF, []), {})[1][0].startswith("TXT _dmarc." + "a" * 63 + ".a")
    for labels in (1, 2, 7, 8, 9, 50):
        domain = ".".join(["x"] * labels)
        assert len(asked(check(domain, NO_SPF, []), {})[1]) == min(labels, 8)


def test_what_needs_not_be_known_is_not_asked_for() -> None:
    own = zone({"example.com": REJECT})
    one = ["TXT _dmarc.example.com"]
    assert asked(check("example.com", NO_SPF, [dkim("example.com")]), own)[1] == one
    assert asked(check("example.com", NO_SPF, []), own)[1] == one
    assert asked(check("example.com", spf("a.example.com"), []), zone({"example.com": REJECT + ";aspf=s"}))[1] == one
    two = [*one, "TXT _dmarc.com"]
    strangers = [dkim(f"{n}.example.net") for n in range(10)]
    assert asked(check("example.com", NO_SPF, strangers), own)[1] == two
    below = asked(check("example.com", NO_SPF, [dkim("a.example.com"), dkim("a.example.com")]), own)[1]
    assert below == [*two, "TXT _dmarc.a.example.com"]


def test_dns_away_is_neither_pass_nor_fail() -> None:
    away = TemporaryFailure("timed out")
    assert answered(check("example.com", NO_SPF, []), zone({"example.com": away})).result == "temperror"
    # The signer's tree, while another identifier is aligned, or not.
    broken = zone({"example.com": REJECT, "a.example.com": away})
    assert answered(check("example.com", NO_SPF, [dkim("a.example.com")]), broken).result == "temperror"
    assert answered(check("example.com", spf("b.example.com"), [dkim("a.example.com")]), broken).result == "pass"
    assert (
        answered(check("example.com", NO_SPF, [dkim("a.example.com"), dkim("b.example.com")]), broken).result == "pass"
    )
    assert answered(check("example.com", NO_SPF, []), zone({"example.com": NoAnswer("no TXT")})).result == "none"


def test_a_from_of_several_domains_never_passes() -> None:
    """RFC 9989 §11.5: each is checked, and the strictest that fails counts."""
    records = zone({"bank.example": REJECT, "mallory.example": "v=DMARC1; p=none", "calm.example": "v=DMARC1; p=none"})
    signed = [dkim("mallory.example")]
    for domains in (("mallory.example", "bank.example"), ("bank.example", "mallory.example")):
        found = answered(check_authors(Authors(domains, problem="several"), NO_SPF, signed), records)
        assert (found.result, found.policy, found.from_domain) == ("fail", "reject", "bank.example")
        assert found.problem == "several"
    only = answered(check_authors(Authors(("mallory.example",), problem="odd"), NO_SPF, signed), records)
    assert (only.result, only.from_domain, only.problem) == ("permerror", "mallory.example", "odd")
    nobody = answered(check_authors(Authors(problem="there is no From"), NO_SPF, signed), records)
    assert (nobody.result, nobody.policy) == ("permerror", "none")
    clear = answered(check_authors(Authors(("mallory.example",)), NO_SPF, signed), records)
    assert clear.result == "pass"
    many = Authors(tuple(f"d{n}.example" for n in range(50)), problem="several")
    assert len(asked(check_authors(many, NO_SPF, []), {})[1]) <= 3 * 8


LABELS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=9).map(".".join)
TEXTS = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(["p=none", "p=reject", "sp=quarantine", "np=reject", "psd=y", "psd=n", "adkim=s", "t=y", "=", "p"]),
        max_size=6,
    ).map(lambda tags: "; ".join(["v=DMARC1", *tags]).encode()),
)  # fmt: skip


@given(
    author=LABELS,
    signers=st.lists(LABELS, max_size=3),
    sender=LABELS,
    records=st.dictionaries(LABELS, st.one_of(st.lists(TEXTS, max_size=2), st.just(TemporaryFailure("x"))), max_size=6),
)
def test_any_tree_of_any_records(author: str, signers: list[str], sender: str, records: dict[str, Any]) -> None:
    """It ends, asks each name once and few of them, and passes only what shares an organization."""
    found = {(f"_dmarc.{name}", "TXT"): value for name, value in records.items()}
    result, questions = asked(check(author, spf(sender), [dkim(signer) for signer in signers]), found)
    assert len(set(questions)) == len(questions) <= 8 * 5 + 1
    if result.result == "pass":
        assert result.aligned_domain in (*signers, sender)
        assert result.aligned_domain == author or author.split(".")[-1] == result.aligned_domain.split(".")[-1]
    assert result.result != "permerror"


@given(st.binary())
def test_any_octets_as_a_record(octets: bytes) -> None:
    record = policy_record([octets])
    assert record is None or record.text


def test_an_answer_that_is_thrown_anywhere() -> None:
    """Each question in turn fails in each way: a result comes back all the same."""
    for number in range(6):
        for error in (NoSuchName("x"), NoAnswer("x"), TemporaryFailure("x")):
            asking = check("a.example.com", spf("b.example.com"), [dkim("c.example.com")])
            try:
                next(asking)
                for count in range(50):
                    if count == number:
                        asking.throw(error)
                    else:
                        asking.send([b"v=DMARC1; p=reject; np=none"])
            except StopIteration as end:
                assert isinstance(end.value, DmarcResult)
