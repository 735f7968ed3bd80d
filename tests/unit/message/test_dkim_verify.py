"""DKIM verifying: RFC 6376's rules one by one in a table, the RFCs' examples, and dkimpy as the second opinion."""

import base64
import itertools

import pytest
from cryptography.hazmat.primitives import serialization
from signedmail import BODY, ED25519, NOW, PLAIN, RSA, ZONE, public_text, result, results, sign

from services.message.dkim_record import key_record
from services.message.dkim_verify import MOST_SIGNATURES, hash_body, signatures, verify, wanted_bodies
from services.protocol.dns_lookup import NoAnswer, TemporaryFailure, answered

MESSAGE = PLAIN + BODY
KEY = public_text(RSA[2048])
SPKI_ED25519 = base64.b64encode(
    ED25519.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)


@pytest.mark.parametrize("body_form", [b"simple", b"relaxed"])
@pytest.mark.parametrize("header_form", [b"simple", b"relaxed"])
@pytest.mark.parametrize("algorithm", [b"rsa-sha256", b"ed25519-sha256"])
def test_each_form_with_each_algorithm_passes(header_form: bytes, body_form: bytes, algorithm: bytes) -> None:
    selector = b"ed" if algorithm.startswith(b"ed") else b"rsa"
    field = sign({"c": header_form + b"/" + body_form, "a": algorithm, "s": selector})
    found = result(field + MESSAGE)
    assert (found.result, found.problem, found.counts_for_alignment) == ("pass", "", True)
    assert (found.domain, found.selector, found.algorithm) == ("example.org", selector.decode(), algorithm.decode())
    assert found.key_bits == (256 if selector == b"ed" else 2048) and found.identity == "@example.org"
    assert field.replace(b" ", b"").partition(b";b=")[2].startswith(found.mark.encode()) and len(found.mark) == 8


# (what, tags of the signature, result, words of the problem)
TAGS = [
    ("no v=", {"v": None}, "permerror", "no v="),
    ("v=2", {"v": b"2"}, "permerror", "v= is not 1"),
    ("v=1.0", {"v": b"1.0"}, "permerror", "v= is not 1"),
    ("no a=", {"a": None}, "permerror", "no a="),
    ("no d=", {"d": None}, "permerror", "no d="),
    ("no s=", {"s": None}, "permerror", "no s="),
    ("no h=", {"h": None}, "permerror", "no h="),
    ("no bh=", {"bh": None}, "permerror", "no bh="),
    ("rsa-sha1", {"a": b"rsa-sha1"}, "permerror", "rsa-sha1"),
    ("unknown algorithm", {"a": b"rsa-sha512"}, "neutral", "algorithm"),
    ("algorithm in capitals", {"a": b"RSA-SHA256"}, "pass", ""),
    ("unknown form", {"c": b"nofws/simple"}, "neutral", "canonical form"),
    ("one form: the body is simple", {"c": b"relaxed"}, "pass", ""),
    ("no form: simple/simple", {"c": None}, "pass", ""),
    ("From is not covered", {"h": b"to:subject:date"}, "permerror", "does not cover From"),
    ("names in capitals", {"h": b"FROM:To:SUBJECT"}, "pass", ""),
    ("white space in h=", {"h": b"from : to :\r\n subject"}, "pass", ""),
    ("a name that is not there", {"h": b"from:to:subject:reply-to:x-none"}, "pass", ""),
    ("over-signed", {"h": b"from:from:to:to:subject:subject"}, "pass", ""),
    ("d= in capitals", {"d": b"EXAMPLE.ORG"}, "pass", ""),
    ("d= of one label", {"d": b"org"}, "neutral", "d= is no domain name"),
    ("d= with a comment", {"d": b"example.org(.attacker.example"}, "neutral", "d= is no domain name"),
    ("d= with an address", {"d": b"joe@example.org"}, "neutral", "d= is no domain name"),
    ("d= with a dot at the end", {"d": b"example.org."}, "neutral", "d= is no domain name"),
    ("d= with an empty label", {"d": b"example..org"}, "neutral", "d= is no domain name"),
    ("d= of U-labels", {"d": "bücher.example".encode()}, "permerror", "no key"),
    ("d= of what is no UTF-8", {"d": b"b\xfccher.example"}, "neutral", "d= is no domain name"),
    ("d= too long", {"d": b".".join([b"a" * 63] * 4) + b".org"}, "neutral", "d= is no domain name"),
    ("s= too long for DNS", {"s": b".".join([b"a" * 63] * 4)[:250]}, "permerror", "no key"),
    ("s= with a slash", {"s": b"a/b"}, "neutral", "s= is no domain name"),
    ("s= with two labels and no key", {"s": b"rsa.sub"}, "permerror", "no key"),
    ("i= is d=", {"i": b"@example.org"}, "pass", ""),
    ("i= with a local part", {"i": b"joe=40home@example.org"}, "pass", ""),
    ("i= with small hex digits", {"i": b"joe=3dhome@example.org"}, "pass", ""),
    ("i= below d=", {"i": b"joe@mail.EXAMPLE.org"}, "pass", ""),
    ("i= beside d=", {"i": b"joe@badexample.org"}, "permerror", "outside of its d="),
    ("i= above d=", {"i": b"joe@org.example"}, "permerror", "outside of its d="),
    ("i= without @", {"i": b"example.org"}, "neutral", "has no domain"),
    ("i= with a broken escape", {"i": b"joe=4@example.org"}, "neutral", "cannot be read"),
    ("q=dns/txt", {"q": b"dns/txt"}, "pass", ""),
    ("q= with another way too", {"q": b"http : dns/txt"}, "pass", ""),
    ("q= without DNS", {"q": b"http"}, "permerror", "not in DNS"),
    ("t= now", {"t": b"%d" % NOW}, "pass", ""),
    ("t= an hour ahead", {"t": b"%d" % (NOW + 3600)}, "pass", ""),
    ("t= a day ahead", {"t": b"%d" % (NOW + 86_400)}, "fail", "of the future"),
    ("t= is no number", {"t": b"yesterday"}, "neutral", "t= is no number"),
    ("t= of 13 digits", {"t": b"1234567890123"}, "neutral", "t= is no number"),
    ("x= ahead", {"x": b"%d" % (NOW + 1)}, "pass", ""),
    ("x= over", {"x": b"%d" % (NOW - 1)}, "fail", "expired"),
    ("x= before t=", {"t": b"%d" % NOW, "x": b"%d" % NOW}, "neutral", "before it begins"),
    ("x= is no number", {"x": b"-1"}, "neutral", "x= is no number"),
    ("z= is not looked at", {"z": b"From:foo@eng.example|Subject:x=20y"}, "pass", ""),
    ("unknown tags are not looked at", {"x-new": None, "foo": b"bar"}, "pass", ""),
    ("r= of another RFC", {"r": b"y"}, "pass", ""),
    ("bh= is no base64", {"bh": b"!!!!"}, "neutral", "base64"),
    ("bh= empty", {"bh": b""}, "neutral", "base64"),
    ("bh= of another body", {"bh": base64.b64encode(b"x" * 32)}, "fail", "body was changed"),
    ("b= is no base64", {"b": b"abc!"}, "neutral", "base64"),
    ("b= of somebody else", {"b": base64.b64encode(b"x" * 256)}, "fail", "header was changed"),
    ("b= of one octet", {"b": b"eA=="}, "fail", "header was changed"),
    ("no key", {"s": b"none"}, "permerror", "no key"),
    ("key of the other kind", {"s": b"ed"}, "permerror", "key is for ed25519"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "tags", "outcome", "problem"), TAGS, ids=[case[0] for case in TAGS])
def test_tags(what: str, tags: dict[str, bytes | None], outcome: str, problem: str) -> None:
    found = result(sign(tags) + MESSAGE)
    assert (found.result, problem in found.problem) == (outcome, True), found
    assert found.counts_for_alignment == (outcome == "pass")
    assert bool(found.problem) == (outcome != "pass")


# (what, the whole field's value, result, words)
FIELDS = [
    ("nothing", b"", "permerror", "no v="),
    ("no equals sign", b"v=1; rubbish; d=example.org", "neutral", "name=value"),
    ("an empty tag", b"v=1;; a=rsa-sha256", "neutral", "name=value"),
    ("a name that is none", b"v=1; 9=x", "neutral", "name=value"),
    ("a tag twice", b"v=1; d=a.example; d=b.example", "neutral", "d= is there twice"),
    ("a control character", b"v=1; d=a\0b.example", "neutral", "control character"),
]


@pytest.mark.parametrize(("what", "value", "outcome", "problem"), FIELDS, ids=[case[0] for case in FIELDS])
def test_fields_that_are_no_signature(what: str, value: bytes, outcome: str, problem: str) -> None:
    found = result(b"DKIM-Signature: " + value + b"\r\n" + MESSAGE)
    assert (found.result, problem in found.problem) == (outcome, True), found


# (what, change of the message after it was signed with relaxed, still whole, with simple)
CHANGES = [
    ("nothing", b"", b"", True, True),
    ("a blank more in the header", b"Subject: Is ", b"Subject:   Is \t ", True, False),
    ("a name in capitals", b"Subject:", b"SUBJECT:", True, False),
    ("a fold", b"Is dinner", b"Is\r\n dinner", True, False),
    ("white space before the colon", b"Subject:", b"Subject :", True, False),
    ("a word of the header", b"dinner", b"breakfast", False, False),
    ("white space within the body", b"lost the  game", b"lost the game", True, False),
    ("white space at a line's end", b"Joe.\r\n", b"Joe. \t\r\n", True, False),
    ("empty lines at the end", b"Joe.\r\n", b"Joe.\r\n\r\n\r\n", True, True),
    ("no line end at the end", b"Joe.\r\n", b"Joe.", True, True),
    ("a bare LF at the end", b"Joe.\r\n", b"Joe.\r\n\n", False, False),
    ("a letter of the body", b"hungry", b"Hungry", False, False),
    ("an empty line in the middle", b"Hi.\r\n", b"Hi.\r\n\r\n", False, False),
    ("white space where there was none", b"hungry", b"hun gry", False, False),
    ("a form feed is a character", b"Joe.\r\n", b"Joe.\x0c\r\n", False, False),
]  # fmt: skip


@pytest.mark.parametrize(("what", "old", "new", "relaxed", "simple"), CHANGES, ids=[case[0] for case in CHANGES])
def test_changes_on_the_way(what: str, old: bytes, new: bytes, relaxed: bool, simple: bool) -> None:
    for form, whole in ((b"relaxed", relaxed), (b"simple", simple)):
        field = sign({"c": form + b"/" + form})
        message = MESSAGE.replace(old, new, 1) if old else MESSAGE
        assert (result(field + message).result == "pass") == whole, (form, what)


def record(text: bytes, selector: str = "rsa") -> dict[tuple[str, str], list[bytes]]:
    return {(f"{selector}._domainkey.example.org", "TXT"): [text]}


# (what, the key's record, result, words)
RECORDS = [
    ("only p=", b"p=" + KEY, "pass", ""),
    ("all of it", b"v=DKIM1; h=sha256; k=rsa; n=a note; s=email; t=s; p=" + KEY, "pass", ""),
    ("bare RSAPublicKey", b"v=DKIM1; p=" + public_text(RSA[2048], "PKCS1"), "pass", ""),
    ("white space in p=", b"v=DKIM1; p=" + KEY[:40] + b" \t" + KEY[40:] + b" ;", "pass", ""),
    ("granularity of RFC 4871", b"v=DKIM1; g=*; k=rsa; p=" + KEY, "pass", ""),
    ("revoked", b"v=DKIM1; p=", "permerror", "revoked"),
    ("p= missing", b"v=DKIM1; k=rsa", "permerror", "no key"),
    ("another version", b"v=DKIM2; p=" + KEY, "permerror", "no key"),
    ("v= not first", b"k=rsa; v=DKIM1; p=" + KEY, "permerror", "no key"),
    ("SPF, from a wildcard", b"v=spf1 -all", "permerror", "no key"),
    ("unknown kind", b"k=dsa; p=" + KEY, "permerror", "a kind that nobody knows"),
    ("for other hashes", b"h=sha1; p=" + KEY, "permerror", "may not be used with sha256"),
    ("for this hash too", b"h=sha1:sha256; p=" + KEY, "pass", ""),
    ("for another service", b"s=tlsrpt; p=" + KEY, "permerror", "not for mail (s=tlsrpt)"),
    ("for mail too", b"s=tlsrpt : email; p=" + KEY, "pass", ""),
    ("for all", b"s=*; p=" + KEY, "pass", ""),
    ("no base64", b"p=****", "permerror", "no base64"),
    ("no key in p=", b"p=AAAA", "permerror", "no RSA key"),
    ("an Ed25519 key said to be RSA", b"k=rsa; p=" + public_text(ED25519), "permerror", "no RSA key"),
    ("an Ed25519 key in ASN.1 said to be RSA", b"k=rsa; p=" + SPKI_ED25519, "permerror", "no RSA key"),
    ("an Ed25519 key in ASN.1", b"k=ed25519; p=" + SPKI_ED25519, "permerror", "no Ed25519 key"),
    ("a text that has nothing to do with it", b"hello; world", "permerror", "no key"),
    ("an RSA key said to be Ed25519", b"k=ed25519; p=" + KEY, "permerror", "no Ed25519 key"),
    ("a tag twice", b"p=" + KEY + b"; p=" + KEY, "permerror", "there twice"),
    ("another key", b"p=" + public_text(RSA[1024]), "fail", "or the key is another"),
    ("another key, in testing", b"t=y; p=" + public_text(RSA[1024]), "neutral", "or the key is another"),
    ("in testing", b"t=y; p=" + KEY, "pass", ""),
]


@pytest.mark.parametrize(("what", "text", "outcome", "problem"), RECORDS, ids=[case[0] for case in RECORDS])
def test_key_records(what: str, text: bytes, outcome: str, problem: str) -> None:
    found = result(sign() + MESSAGE, record(text))
    assert (found.result, problem in found.problem) == (outcome, True), found
    assert found.testing == (b"t=y" in text)


def test_dns_that_gives_no_answer() -> None:
    place = ("rsa._domainkey.example.org", "TXT")
    assert result(sign() + MESSAGE, {place: TemporaryFailure("timed out")}).result == "temperror"
    assert result(sign() + MESSAGE, {place: NoAnswer("nothing")}).result == "permerror"
    assert result(sign() + MESSAGE, {}).result == "permerror"


def test_a_name_that_dns_cannot_hold_is_not_asked_for() -> None:
    header = sign({"s": b".".join([b"a" * 60] * 4)}) + PLAIN
    found = signatures(header)
    asking = verify(found, header, hash_body([BODY], wanted_bodies(found)), now=NOW)
    with pytest.raises(StopIteration):
        next(asking)


def test_t_s_forbids_an_identity_below_the_domain() -> None:
    strict = record(b"t=y:s; p=" + KEY)
    assert result(sign({"i": b"joe@example.org"}) + MESSAGE, strict).result == "pass"
    refused = result(sign({"i": b"joe@mail.example.org"}) + MESSAGE, strict)
    assert (refused.result, "t=s" in refused.problem) == ("permerror", True)


def test_several_key_records_are_each_tried() -> None:
    """While a key is replaced by one at the same selector, resolvers hold both."""
    other = b"p=" + public_text(RSA[1024])
    both = {("rsa._domainkey.example.org", "TXT"): [b"v=spf1 -all", other, b"p=" + KEY]}
    assert result(sign() + MESSAGE, both).result == "pass"
    many = {("rsa._domainkey.example.org", "TXT"): [other, other, other, b"p=" + KEY]}
    assert result(sign() + MESSAGE, many).result == "fail", "but not without end"


def test_small_and_huge_keys_are_refused() -> None:
    # Keys of the record alone: nothing is signed with them. A product of random numbers is as good as one of primes.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    def text(bits: int, exponent: int = 65537) -> bytes:
        key = RSAPublicNumbers(exponent, (1 << (bits - 1)) + 12345).public_key()
        encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return b"p=" + base64.b64encode(encoded)

    for bits, outcome, words in (
        (512, "policy", "512 bits; below 1024"),
        (1023, "policy", "1023 bits; below 1024"),
        (1024, "fail", "another"),
        (8192, "fail", "another"),
        (8200, "permerror", "too large"),
        (16384, "permerror", "too large"),
    ):
        found = result(sign() + MESSAGE, record(text(bits)))
        assert (found.result, found.key_bits, words in found.problem) == (outcome, bits, True), found
    slow = result(sign() + MESSAGE, record(text(4096, (1 << 4000) + 1)))
    assert (slow.result, "too large" in slow.problem) == ("permerror", True), slow
    assert key_record(b"p=" + b"A" * 100_000) is None


def test_a_key_of_1024_bits_still_verifies() -> None:
    assert result(sign({"s": b"small"}, private=RSA[1024]) + MESSAGE).key_bits == 1024


@pytest.mark.parametrize(
    "second", [b"From: mallory@example.com\r\n", b"FROM : x@example.com\r\n", b"from:\r\n x@example.com\r\n"]
)
def test_a_second_from_is_refused_though_it_is_not_signed(second: bytes) -> None:
    field = sign({"c": b"simple/simple"})
    for message in (field + second + MESSAGE, second + field + MESSAGE):
        found = result(message)
        assert (found.result, found.counts_for_alignment) == ("policy", False)
        assert "more than one From" in found.problem


def test_a_message_without_from_has_nobody_to_vouch_for() -> None:
    header = PLAIN.replace(b"From: Joe <joe@example.org>\r\n", b"")
    found = result(sign(header=header) + header + BODY)
    assert (found.result, found.problem) == ("policy", "there is no From")


def test_over_signing_forbids_what_is_added() -> None:
    field = sign({"h": b"from:from:subject:subject"})
    assert result(field + b"Subject: another\r\n" + MESSAGE).result == "fail"
    assert result(sign({"h": b"from:subject"}) + b"Subject: another\r\n" + MESSAGE).result == "pass"
    assert result(sign({"h": b"from:cc:subject"}) + b"Cc: x@example.com\r\n" + MESSAGE).result == "fail"


def test_the_lowest_field_of_a_name_is_taken_first() -> None:
    """RFC 6376 §5.4.2; what is put on top later is not the one that was signed."""
    header = b"X-A: 1\r\nX-A: 2\r\nX-A: 3\r\n" + PLAIN
    field = sign({"h": b"from:x-a:x-a"}, header=header)
    assert result(field + header + BODY).result == "pass"
    assert result(field + header.replace(b"X-A: 1", b"X-A: 0") + BODY).result == "pass"
    assert result(field + b"X-A: 0\r\n" + header + BODY).result == "pass"
    assert result(field + header.replace(b"X-A: 2", b"X-A: 0") + BODY).result == "fail"


@pytest.mark.parametrize("form", [b"simple", b"relaxed"])
def test_a_length_is_honoured_but_vouches_for_nothing(form: bytes) -> None:
    for length in (0, 1, 20, len(BODY)):
        try:
            field = sign({"l": b"%d" % length, "c": b"relaxed/" + form})
        except ValueError:
            continue
        found = result(field + MESSAGE)
        whole = length <= len(hashable(form))
        assert (found.result == "pass") == whole, (length, found)
        if whole:
            added = result(field + MESSAGE + b"<h1>Buy this</h1>\r\n")
            assert (added.result, added.counts_for_alignment, "l=" in added.problem) == ("pass", False, True)
            assert not found.counts_for_alignment, "the same for a message to which nothing was added"
    short = result(sign({"l": b"1000"}) + MESSAGE)
    assert (short.result, "more body than there is" in short.problem) == ("permerror", True)
    assert result(sign({"l": b"9" * 76}) + MESSAGE).result == "permerror"
    assert result(sign({"l": b"9" * 77}) + MESSAGE).result == "neutral"


def hashable(form: bytes) -> bytes:
    from signedmail import canonical_body

    return canonical_body(BODY, form)


def test_every_signature_is_verified() -> None:
    good, bad = sign({"s": b"ed", "a": b"ed25519-sha256"}), sign({"b": base64.b64encode(b"x" * 256)})
    assert [found.result for found in results(bad + good + MESSAGE)] == ["fail", "pass"]
    assert [found.result for found in results(good + bad + MESSAGE)] == ["pass", "fail"]
    assert results(MESSAGE) == []


def test_a_signature_over_another_signature() -> None:
    """RFC 6376 §3.5 h=: it may cover others, never itself."""
    first = sign()
    second = sign({"h": b"from:dkim-signature:dkim-signature"}, header=first + PLAIN)
    assert [found.result for found in results(second + first + MESSAGE)] == ["pass", "pass"]
    changed = first.replace(b"v=1;", b"v=1; n=x;")
    assert [found.result for found in results(second + changed + MESSAGE)] == ["fail", "fail"]


def test_signatures_without_number_are_bounded_and_told() -> None:
    found = results(sign() * (MOST_SIGNATURES + 5) + MESSAGE)
    assert [each.result for each in found] == ["pass"] * MOST_SIGNATURES + ["neutral"] * 5
    assert all("not looked at" in each.problem for each in found[MOST_SIGNATURES:])


def test_keys_are_asked_for_once_and_not_for_a_body_that_was_changed() -> None:
    header = sign() * 3 + PLAIN
    found = signatures(header)
    for body, asked in ((BODY, 1), (b"other", 0)):
        asking = verify(found, header, hash_body([body], wanted_bodies(found)), now=NOW)
        questions = []
        try:
            question = next(asking)
            while True:
                questions.append(question)
                question = asking.send([b"p=" + KEY])
        except StopIteration as end:
            assert len(end.value) == 3
        assert len(questions) == asked


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_chunks_may_be_cut_anywhere(size: int) -> None:
    body = b"a \t b\r\n\r\n \r\n\r\r\nc \r\n" * 20 + b" \t\r\n\r\n\r"
    forms = {
        form
        for c, length in itertools.product((b"simple", b"relaxed"), (None, b"0", b"17", b"99"))
        for form in wanted_bodies(signatures(sign({"c": c + b"/" + c, "l": length})))
    }
    whole = hash_body([body], forms)
    assert len(whole) == 8
    assert hash_body([body[i : i + size] for i in range(0, len(body), size)], forms) == whole


# (what, how b= stands in the field, that is its value and the white space about it)
SPACES = [b"b=%s", b"b= %s", b" b = %s", b"b=\r\n %s", b"\r\n\tb =\r\n\t%s\r\n ;", b"b=%s ; ", b"b=%s;x=9999999999"]


@pytest.mark.parametrize("form", [b"relaxed", b"simple"])
@pytest.mark.parametrize("b_tag", SPACES)
def test_white_space_about_b(b_tag: bytes, form: bytes) -> None:
    """RFC 6376 §3.7: the value goes, "including all surrounding whitespace"; the rest of the field stays."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from signedmail import octets_to_sign

    whole = sign({"c": form + b"/simple"})
    rest = whole.partition(b"b=")[0] if whole.count(b"b=") == 1 else whole[: whole.rindex(b"b=")]
    before, _, after = b_tag.partition(b"%s")
    emptied = before.rstrip(b" \t\r\n") + after.lstrip(b" \t\r\n")
    data = octets_to_sign(PLAIN, rest + emptied + b"\r\n", [b"from", b"to", b"subject", b"date", b"message-id"], form)
    value = base64.b64encode(RSA[2048].sign(data, padding.PKCS1v15(), hashes.SHA256()))
    folded = b"\r\n\t".join(value[i : i + 60] for i in range(0, len(value), 60))
    found = result(rest + b_tag.replace(b"%s", folded) + b"\r\n" + MESSAGE)
    assert found.result == "pass", found


def test_names_of_u_labels() -> None:
    """RFC 8616 §5: they are what their A-labels are."""
    field = sign({"d": "bücher.example".encode(), "i": "jörg@post.bücher.example".encode()})
    header = field + PLAIN
    found = signatures(header)
    zone = {("rsa._domainkey.xn--bcher-kva.example", "TXT"): [b"p=" + KEY]}
    (verified,) = answered(verify(found, header, hash_body([BODY], wanted_bodies(found)), now=NOW), zone)
    assert (verified.result, verified.domain) == ("pass", "xn--bcher-kva.example")
    assert verified.identity == "jörg@post.xn--bcher-kva.example"


def test_lines_that_are_no_field_are_none_that_was_signed() -> None:
    """RFC 5322 §2.2: mbox files begin with one, and old programs leave others."""
    field = sign()
    assert (
        result(b"From joe@example.org Mon Jan  1 00:00:00 2024\r\n" + field + b"rubbish\r\n" + MESSAGE).result == "pass"
    )


def test_8_bit_headers_are_octets() -> None:
    header = PLAIN.replace(b"Is dinner", "Ist das 晚饭".encode() + b"\xff\xfe")
    field = sign(header=header)
    assert result(field + header + BODY).result == "pass"
    assert result(field + header.replace(b"\xff", b"\xef") + BODY).result == "fail"


EMPTY = [(b"", True), (b"\r\n", True), (b"\r\n\r\n", True), (b" \r\n", None), (b"x", False)]


@pytest.mark.parametrize(("body", "whole"), EMPTY)
def test_empty_bodies(body: bytes, whole: bool | None) -> None:
    for form in (b"simple", b"relaxed"):
        expected = (form == b"relaxed") if whole is None else whole
        assert (result(sign({"c": b"relaxed/" + form}, body=b"") + PLAIN + body).result == "pass") == expected


def test_zone_of_the_tests_is_whole() -> None:
    assert all(key_record(bytes(answer[0])).key is not None for answer in ZONE.values())  # type: ignore[union-attr,index]
