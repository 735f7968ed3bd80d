"""SPF, DKIM, DMARC and From together against messages that are each right for one of them.

Chen, Paxson, Jiang, "Composition Kills" (USENIX Security 2020): a check passes for one name and the reader is shown
another. The attacker owns evil.example, with SPF, a DKIM key and a policy, and sends from its own server; the bank has
p=reject. No message here may pass for the bank, and none may pass that shows the bank as its author anywhere a program
would look.
"""

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from services.message.dkim_verify import hash_body, signatures, verify, wanted_bodies
from services.message.from_domain import from_domains
from services.policy.dmarc import DmarcResult, check_authors
from services.policy.spf import check as check_spf
from services.protocol.dns_lookup import answered

ATTACKER = "192.0.2.66"
NOW = 1_700_000_000
EVIL_KEY = rsa.generate_private_key(65537, 1024)
BANK_KEY = rsa.generate_private_key(65537, 1024)


def public(key: rsa.RSAPrivateKey) -> bytes:
    encoded = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return b"v=DKIM1; p=" + base64.b64encode(encoded)


ZONE: dict[tuple[str, str], Any] = {
    ("bank.example", "TXT"): [b"v=spf1 ip4:198.51.100.1 -all"],
    ("_dmarc.bank.example", "TXT"): [b"v=DMARC1; p=reject"],
    ("s._domainkey.bank.example", "TXT"): [public(BANK_KEY)],
    ("evil.example", "TXT"): [b"v=spf1 ip4:192.0.2.66 -all"],
    ("_dmarc.evil.example", "TXT"): [b"v=DMARC1; p=none"],
    ("s._domainkey.evil.example", "TXT"): [public(EVIL_KEY)],
    # What a resolver would be asked for where a name is taken as it stands: the attacker's wildcard answers it.
    ("s._domainkey.bank.example(.evil.example", "TXT"): [public(EVIL_KEY)],
    ("s\0.evil.example._domainkey.bank.example", "TXT"): [public(EVIL_KEY)],
    ("s._domainkey.bank.example\0.evil.example", "TXT"): [public(EVIL_KEY)],
    ("bank.example(.evil.example", "TXT"): [b"v=spf1 +all"],
    ("bank.example\0.evil.example", "TXT"): [b"v=spf1 +all"],
    ("any@bank.example.evil.example", "TXT"): [b"v=spf1 +all"],
}
BODY = b"Please log in.\r\n"
SHOWN = b"From: The bank <boss@bank.example>\r\n"
OTHERS = b"To: anna@home.example\r\nSubject: Your account\r\n"


def signed(header: bytes, *, d: bytes = b"evil.example", s: bytes = b"s", h: bytes = b"from:to:subject",
           key: rsa.RSAPrivateKey = EVIL_KEY, body: bytes = BODY, extra: bytes = b"") -> bytes:  # fmt: skip
    """`header` with a signature that is right for what stands below it, in simple form."""
    digest = base64.b64encode(hashlib.sha256(body).digest())
    own = (
        b"DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=" + d + b"; s=" + s + b"; h=" + h + b"; bh=" + digest
        + extra + b"; b="
    )  # fmt: skip
    lines = header.split(b"\r\n")[:-1]
    fields = {line.partition(b":")[0].strip().lower(): line + b"\r\n" for line in lines}
    data = b"".join(fields.pop(name, b"") for name in h.split(b":")) + own
    return own + base64.b64encode(key.sign(data, padding.PKCS1v15(), hashes.SHA256())) + b"\r\n" + header


def judged(
    header: bytes, sender: str = "boss@evil.example", helo: str = "evil.example", body: bytes = BODY
) -> DmarcResult:
    spf = answered(check_spf(ATTACKER, helo, sender, receiver="home.example"), ZONE)
    found = signatures(header)
    dkim = answered(verify(found, header, hash_body([body], wanted_bodies(found)), now=NOW), ZONE)
    return answered(check_authors(from_domains(header), spf, dkim), ZONE)


EVIL = b"From: m@evil.example\r\n"


def test_what_is_right_passes() -> None:
    """The table below is worth something only if the attacker's own mail passes, and the bank's."""
    assert judged(signed(EVIL + OTHERS)).result == "pass"
    assert judged(EVIL + OTHERS).result == "pass", "by SPF"
    theirs = judged(signed(SHOWN + OTHERS, d=b"bank.example", key=BANK_KEY))
    assert (theirs.result, theirs.aligned_by, theirs.from_domain) == ("pass", "dkim", "bank.example")


# (what, envelope sender, name in HELO)
ENVELOPES = [
    ("the attacker's own", "m@evil.example", "evil.example"),
    ("no sender, and the bank's name in HELO", "", "bank.example"),
    ("no sender, and a name below the attacker's", "", "evil.example"),
    ("the bank's, from a stranger's address", "boss@bank.example", "evil.example"),
    ("a comment in the domain", "m@bank.example(.evil.example", "evil.example"),
    ("a NUL in the domain", "m@bank.example\0.evil.example", "evil.example"),
    ("two @", "any@bank.example@evil.example", "evil.example"),
    ("two @, quoted", '"boss@bank.example"@evil.example', "evil.example"),
    ("an address as local part", "m@evil.example,boss@bank.example", "evil.example"),
    ("a comment in HELO", "", "bank.example(.evil.example"),
    ("a domain below the bank's that is not there", "m@nobody.bank.example", "evil.example"),
]


@pytest.mark.parametrize(("what", "sender", "helo"), ENVELOPES, ids=[case[0] for case in ENVELOPES])
def test_no_envelope_proves_the_bank(what: str, sender: str, helo: str) -> None:
    for header in (SHOWN + OTHERS, signed(SHOWN + OTHERS)):
        found = judged(header, sender, helo)
        assert (found.result, found.policy, found.from_domain) == ("fail", "reject", "bank.example"), found


# (what, header with its signature)
SIGNATURES = [
    ("d= with a comment", signed(SHOWN + OTHERS, d=b"bank.example(.evil.example")),
    ("d= with a NUL", signed(SHOWN + OTHERS, d=b"bank.example\0.evil.example")),
    ("s= with a NUL", signed(SHOWN + OTHERS, d=b"bank.example", s=b"s\0.evil.example")),
    ("s= that ends the name", signed(SHOWN + OTHERS, d=b"bank.example", s=b"s._domainkey.evil.example.")),
    ("s= that goes elsewhere", signed(SHOWN + OTHERS, d=b"bank.example", s=b"s._domainkey.evil.example")),
    ("d= twice", signed(SHOWN + OTHERS, extra=b"; d=bank.example")),
    ("i= of the bank", signed(SHOWN + OTHERS, extra=b"; i=@bank.example")),
    ("d= of the suffix", signed(SHOWN + OTHERS, d=b"example")),
    ("d= of an address", signed(SHOWN + OTHERS, d=b"bank.example@evil.example")),
    ("d= that ends alike", signed(SHOWN + OTHERS, d=b"evilbank.example")),
    ("a signature of the attacker's beside one of the bank's that fails",
     signed(signed(SHOWN + OTHERS, d=b"bank.example"))),
]  # fmt: skip


@pytest.mark.parametrize(("what", "header"), SIGNATURES, ids=[case[0] for case in SIGNATURES])
def test_no_signature_proves_the_bank(what: str, header: bytes) -> None:
    found = judged(header)
    assert (found.result, found.policy, found.from_domain) == ("fail", "reject", "bank.example"), found


# (what, fields that name an author)
FROMS = [
    ("two fields, the bank's first", SHOWN + EVIL),
    ("two fields, the bank's last", EVIL + SHOWN),
    ("the second with a blank before the colon", EVIL + b"From : boss@bank.example\r\n"),
    ("the first with a blank before the colon", b"From : boss@bank.example\r\n" + EVIL),
    ("the second in capitals", EVIL + b"FROM: boss@bank.example\r\n"),
    ("a blank before the first line", b" From: boss@bank.example\r\n" + EVIL),
    ("a control character in the name", b"From\x01: boss@bank.example\r\n" + EVIL),
    ("a NUL before the name", b"\0From: boss@bank.example\r\n" + EVIL),
    ("an 8-bit octet behind the name", b"From\xa0: boss@bank.example\r\n" + EVIL),
    ("two addresses", b"From: m@evil.example, boss@bank.example\r\n"),
    ("two addresses, the bank's first", b"From: <boss@bank.example>, <m@evil.example>\r\n"),
    ("two angles", b"From: <boss@bank.example><m@evil.example>\r\n"),
    ("angle behind angle", b"From: <m@evil.example> <boss@bank.example>\r\n"),
    ("the bank's as a bare name", b"From: boss@bank.example <m@evil.example>\r\n"),
    ("the attacker's as a bare name", b"From: m@evil.example <boss@bank.example>\r\n"),
    ("a route through the bank", b"From: <@bank.example:m@evil.example>\r\n"),
    ("a route through the attacker", b"From: <@evil.example:boss@bank.example>\r\n"),
    ("a group", b"From: Us:m@evil.example,boss@bank.example;\r\n"),
    ("a group, then an address", b"From: m@evil.example:;, boss@bank.example\r\n"),
    ("an open quote", b'From: "<boss@bank.example> <m@evil.example>\r\n'),
    ("an open comment", b"From: m@evil.example (<boss@bank.example>\r\n"),
    ("a comment that is none", b"From: (<boss@bank.example>\\) <m@evil.example>\r\n"),
    ("a NUL within", b"From: boss@bank.example\0,m@evil.example\r\n"),
    ("two @", b"From: boss@bank.example@evil.example\r\n"),
    ("two @, the other way", b"From: m@evil.example@bank.example\r\n"),
    ("a comma without an address", b"From: ,boss@bank.example, m@evil.example\r\n"),
    ("a fold within", b"From: boss@bank.example\r\n ,m@evil.example\r\n"),
    ("a backslash before @", b"From: <boss\\@bank.example>, m@evil.example\r\n"),
    ("a semicolon between", b"From: boss@bank.example; m@evil.example\r\n"),
    ("a colon between", b"From: boss@bank.example: m@evil.example\r\n"),
]


@pytest.mark.parametrize(("what", "froms"), FROMS, ids=[case[0] for case in FROMS])
def test_no_from_hides_the_bank_behind_the_attacker(what: str, froms: bytes) -> None:
    """The attacker's SPF passes and its signature covers whichever From it likes: no result but fail or permerror, and
    where the bank's address can be read at all, the bank's policy."""
    messages = [froms + OTHERS, signed(froms + OTHERS), signed(froms + OTHERS, h=b"from:from:to")]
    # Below another field a line that begins with a blank is a fold of that (and folds of h= begin with "from:").
    for header in messages[:1] if froms.startswith(b" ") else messages:
        found = judged(header)
        assert found.result in ("fail", "permerror") and found.problem, found
        if found.result == "fail":
            assert (found.policy, found.from_domain) == ("reject", "bank.example"), found


# (what, From whose one author is the attacker; a person may see the bank, which DMARC does not speak of)
DISPLAYED = [
    ("a quoted name", b'From: "boss@bank.example" <m@evil.example>\r\n'),
    ("a comment", b"From: m@evil.example (boss@bank.example)\r\n"),
    ("an encoded name", b"From: =?utf-8?Q?boss=40bank.example?= <m@evil.example>\r\n"),
    ("a quoted local part", b'From: "boss@bank.example"@evil.example\r\n'),
    ("an encoded name in base64", b"From: =?utf-8?B?Ym9zc0BiYW5rLmV4YW1wbGU=?= <m@evil.example>\r\n"),
]


@pytest.mark.parametrize(("what", "froms"), DISPLAYED, ids=[case[0] for case in DISPLAYED])
def test_a_name_that_shows_the_bank_is_told(what: str, froms: bytes) -> None:
    """RFC 9989 §11.4: out of DMARC's scope. It passes for the attacker, never for the bank, and the reader is told."""
    authors = from_domains(froms + OTHERS)
    assert authors.domains == ("evil.example",) and "bank.example" in authors.displayed
    assert judged(froms + OTHERS).from_domain == "evil.example"


def bank_mail(h: bytes = b"from:to:subject", extra: bytes = b"", body: bytes = BODY) -> bytes:
    return signed(SHOWN + OTHERS, d=b"bank.example", key=BANK_KEY, h=h, extra=extra, body=body)


def test_a_replay_with_more_in_it() -> None:
    """RFC 6376 §8.15, §8.2: what was not signed is added."""
    replay = {"sender": "m@evil.example", "helo": "evil.example"}
    assert judged(bank_mail(), **replay).result == "pass", "as it was: a forwarder may do that"
    assert judged(b"From: m@evil.example\r\n" + bank_mail(), **replay).result != "pass"
    assert judged(bank_mail() + b"From: m@evil.example\r\n", **replay).result != "pass"
    over_signed = bank_mail(h=b"from:subject:subject:to")
    assert judged(over_signed, **replay).result == "pass"
    assert judged(b"Subject: Pay now\r\n" + over_signed, **replay).result == "fail"
    short = bank_mail(extra=b"; l=16")
    assert judged(short, **replay).result == "fail", "l= vouches for nothing, even where nothing was added"
    assert judged(short, **replay, body=BODY + b"Pay here\r\n").result == "fail"
    assert judged(bank_mail(), **replay, body=BODY + b"Pay here\r\n").result == "fail"


def test_the_attackers_policy_is_not_the_banks() -> None:
    """A record of the attacker's that says psd=y, or one below the bank that it does not own, changes nothing."""
    for text in (b"v=DMARC1; p=none; psd=y", b"v=DMARC1; p=none; psd=n", b"v=DMARC1; p=none; aspf=r; adkim=r"):
        zone = {**ZONE, ("_dmarc.evil.example", "TXT"): [text]}
        spf = answered(check_spf(ATTACKER, "evil.example", "m@evil.example", receiver="home.example"), zone)
        found = answered(check_authors(from_domains(SHOWN + OTHERS), spf, []), zone)
        assert (found.result, found.policy) == ("fail", "reject")
