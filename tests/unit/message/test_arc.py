"""ARC: chains as RFC 8617 wants them, each way to break one, and dkimpy as the second opinion."""

import re

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signedmail import BODY, ED25519, NOW, PLAIN, RSA, chain_result, public_text, seal

from services.message import arc
from services.message.arc import MOST_MESSAGE_SIGNATURES, read_chain
from services.protocol.dns_lookup import Answer, DnsError, TemporaryFailure

MESSAGE = PLAIN + BODY
KEY = b"p=" + public_text(RSA[2048])
ZONE: dict[tuple[str, str], Answer | DnsError] = {
    ("rsa._domainkey.list.example", "TXT"): [KEY],
    ("rsa._domainkey.other.example", "TXT"): [KEY],
    ("ed._domainkey.list.example", "TXT"): [b"k=ed25519; p=" + public_text(ED25519)],
    ("small._domainkey.list.example", "TXT"): [b"p=" + public_text(RSA[1024])],
}


def dkimpy_says(message: bytes) -> bytes | None:
    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        found = ZONE.get((name.decode().removesuffix("."), "TXT"))
        return bytes(found[0]) if found is not None and not isinstance(found, DnsError) else None

    return dkim.arc_verify(message, dnsfunc=look_up)[0]  # type: ignore[no-any-return]


def test_one_set() -> None:
    message = seal(MESSAGE)
    found = chain_result(message, ZONE)
    assert (found.result, found.problem, found.sealers, found.oldest_pass) == ("pass", "", ("list.example",), 0)
    (one,) = found.sets
    assert one.results is not None and one.results.authserv_id == "list.example"
    assert [each.method for each in one.results.results] == ["dkim", "dmarc"]
    assert dkimpy_says(message) == b"pass"


def test_several_sets_by_several_sealers() -> None:
    message = seal(seal(seal(MESSAGE), d=b"other.example"), private=ED25519, s=b"ed")
    found = chain_result(message, ZONE)
    assert (found.result, found.sealers) == ("pass", ("list.example", "other.example", "list.example")), found
    assert found.oldest_pass == 0
    # Added and changed on the way, without a set of one's own: only the newest signature must hold.
    assert dkimpy_says(seal(seal(MESSAGE), d=b"other.example")) == b"pass"


def test_no_chain() -> None:
    assert chain_result(MESSAGE, ZONE).result == "none"
    assert dkimpy_says(MESSAGE) == b"none"


def test_a_change_between_sealers_shows_in_the_oldest_pass() -> None:
    first = seal(MESSAGE)
    changed = first.replace(b"Subject: Is", b"Subject: [list] Is") + b"-- \r\nfooter\r\n"
    message = seal(seal(changed, d=b"other.example"))
    found = chain_result(message, ZONE)
    assert (found.result, found.oldest_pass) == ("pass", 2)
    assert dkimpy_says(message) == b"pass"
    last = chain_result(seal(changed), ZONE)
    assert (last.result, last.oldest_pass) == ("pass", 2)


# (what, pattern in a message of two sets, what stands there instead, words of the problem)
BROKEN = [
    ("the body", rb"hungry", b"Hungry", "message signature 2"),
    ("the subject", rb"Subject: Is", b"Subject: Was", "message signature 2"),
    ("a result of the first", rb"dmarc=pass", b"dmarc=fail", "seal 2 does not hold"),
    ("the first one's message signature", rb"(ARC-Message-Signature: [^\r]*c=)relaxed([^\r]*i=1;)",
     rb"\1Relaxed\2", "seal 2 does not hold"),
    ("a field of a set is gone", rb"ARC-Authentication-Results: i=1;[^\r]*\r\n", b"", "1 has not all"),
    ("a seal is gone", rb"ARC-Seal: i=2;[^\r]*\r\n", b"", "2 has not all"),
    ("a field is there twice", rb"(ARC-Authentication-Results: i=1;[^\r]*\r\n)", rb"\1\1", "1 has a field twice"),
    ("the first set is gone", rb"ARC-[^\r]*[ ;]i=1;[^\r]*\r\n", b"", "set 1 is missing"),
    ("a number that is none", rb"i=2; cv", b"i=x; cv", "no number"),
    ("no number", rb"i=2; cv", b"cv", "no number"),
    ("results without a number", rb"(ARC-Authentication-Results:) i=1;", rb"\1", "no number"),
    ("results with the number behind the name", rb"(ARC-Authentication-Results:) i=1; (list.example;)", rb"\1 \2 i=1;",
     "no number"),
    ("results without a semicolon behind the number", rb"(ARC-Authentication-Results: i=1);", rb"\1", "no number"),
    ("results of another number", rb"(ARC-Authentication-Results: i=)1;", rb"\g<1>3;", "1 has not all"),
    ("number 0", rb"i=2; cv", b"i=0; cv", "no number"),
    ("number 51", rb"i=2; cv", b"i=51; cv", "no number"),
    ("a seal that is no tag-list", rb"i=2; cv", b"i=2; i=2; cv", "no number"),
    ("the newest seal's signature", rb"(ARC-Seal: i=2;[^\r]*b=)....", rb"\1AAAA", "seal 2 does not hold"),
    ("the first seal's signature", rb"(ARC-Seal: i=1;[^\r]*b=)....", rb"\1AAAA", "seal 2 does not hold"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "pattern", "new", "problem"), BROKEN, ids=[case[0] for case in BROKEN])
def test_a_chain_that_was_broken(what: str, pattern: bytes, new: bytes, problem: str) -> None:
    message = seal(seal(MESSAGE), d=b"other.example")
    count = 0 if "first set is gone" in what else 1
    broken = re.sub(pattern, new, message, count=count)
    assert broken != message
    found = chain_result(broken, ZONE)
    assert (found.result, problem in found.problem) == ("fail", True), found
    assert dkimpy_says(broken) in (b"fail", None)


# (what, arguments of the second seal, result, words)
MADE = [
    ("right", {}, "pass", ""),
    ("cv=fail", {"cv": b"fail"}, "fail", "not valid there"),
    ("cv=none in the second", {"cv": b"none"}, "fail", "not valid there"),
    ("cv= of another word", {"cv": b"maybe"}, "fail", "not valid there"),
    ("h= in the seal", {"seal_tags": {"h": b"from"}}, "fail", "must not"),
    ("t= in the seal", {"seal_tags": {"t": b"12345"}}, "pass", ""),
    ("t= that is no number", {"seal_tags": {"t": b"-123.4"}}, "fail", "no number"),
    ("another tag", {"seal_tags": {"w": b"catparty"}}, "pass", ""),
    ("results that cannot be read", {"results": b""}, "pass", ""),
    ("rsa-sha1", {"seal_tags": {"a": b"rsa-sha1"}}, "fail", "rsa-sha1"),
    ("no key", {"s": b"none"}, "fail", "no key"),
    ("a small key", {"s": b"small", "private": RSA[1024]}, "pass", ""),
    ("another key", {"s": b"small"}, "fail", "another"),
    ("an odd domain", {"d": b"list.example(.x.example"}, "fail", "no domain name"),
    ("the message signature covers a seal", {"message_tags": {"h": b"from:arc-seal"}}, "fail", "ARC-Seal"),
    ("the message signature does not cover From", {"message_tags": {"h": b"to"}}, "fail", "From"),
    ("the message signature covers a part", {"message_tags": {"l": b"5"}}, "fail", "beginning of the body"),
    ("the message signature in simple form", {"message_tags": {"c": b"simple/simple"}}, "pass", ""),
    ("a set is left out", {"instance": 3}, "fail", "set 2 is missing"),
    ("a number twice", {"instance": 1, "cv": b"none"}, "fail", "twice"),
    ("two digits", {"instance": 2, "seal_tags": {"i": b"02"}}, "pass", ""),
]


@pytest.mark.parametrize(("what", "arguments", "result", "problem"), MADE, ids=[case[0] for case in MADE])
def test_a_second_set(what: str, arguments: dict[str, object], result: str, problem: str) -> None:
    found = chain_result(seal(seal(MESSAGE), **arguments), ZONE)  # type: ignore[arg-type]
    assert (found.result, problem in found.problem) == (result, True), found


def test_fifty_sets_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    message = MESSAGE
    for _ in range(50):
        message = seal(message)
    found = chain_result(message, ZONE)
    assert (found.result, len(found.sealers)) == ("pass", 50)
    assert found.oldest_pass == 50 - MOST_MESSAGE_SIGNATURES + 1, "older ones are not looked at"
    assert chain_result(seal(message), ZONE).result == "fail"


def test_dns_away_is_a_failure_for_now() -> None:
    away = {("rsa._domainkey.list.example", "TXT"): TemporaryFailure("x")}
    found = chain_result(seal(MESSAGE), away)
    assert (found.result, found.temporary) == ("fail", True)
    assert not chain_result(seal(MESSAGE), {}).temporary


def test_each_key_is_asked_for_once() -> None:
    message = seal(seal(seal(MESSAGE)), d=b"other.example")
    header, _, body = message.partition(b"\r\n\r\n")
    chain = read_chain(header + b"\r\n")
    from services.message.dkim_verify import hash_body

    asking = arc.validate(chain, header + b"\r\n", hash_body([body], chain.wanted_bodies()), now=NOW)
    questions = []
    try:
        question = next(asking)
        while True:
            questions.append(question.name)
            question = asking.send([KEY])
    except StopIteration as end:
        assert end.value.result == "pass"
    assert questions == ["rsa._domainkey.other.example", "rsa._domainkey.list.example"]


def test_two_from_fields_are_no_message_that_anybody_sealed() -> None:
    message = b"From: boss@bank.example\r\n" + seal(MESSAGE)
    assert chain_result(message, ZONE).result == "fail"


LINES = st.lists(
    st.sampled_from(
        [
            b"ARC-Seal: i=1; cv=none; a=rsa-sha256; d=list.example; s=rsa; b=AAAA\r\n",
            b"ARC-Message-Signature: i=1; a=rsa-sha256; d=list.example; s=rsa; h=from; bh=AAAA; b=AAAA\r\n",
            b"ARC-Authentication-Results: i=1; list.example; dmarc=pass header.from=example.org\r\n",
            b"ARC-Authentication-Results: i=2;\r\n",
            b"ARC-Seal: i=2\r\n",
            b"arc-seal:\r\n",
            b"ARC-Message-Signature: i=1; a\r\n",
            b"From: a@b.test\r\n",
        ]
    ),
    max_size=8,
)


@given(LINES, st.binary(max_size=30))
def test_any_sets(lines: list[bytes], end: bytes) -> None:
    message = b"".join(lines) + end + b"\r\n\r\nbody\r\n"
    assert chain_result(message, ZONE).result in ("none", "fail")


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200))
def test_any_octets_in_a_set(seal_: bytes, signature: bytes, results: bytes) -> None:
    header = b"ARC-Seal: i=1;" + seal_ + b"\r\nARC-Message-Signature: i=1;" + signature
    chain_result(header + b"\r\nARC-Authentication-Results: i=1;" + results + b"\r\n\r\nbody\r\n", ZONE)
