"""DKIM verifying under anything: any octets, megabytes of them, any change of a signed message; dkimpy as the judge."""

import base64
import re
import time
from unittest import mock

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signedmail import BODY, ED25519, NOW, PLAIN, RSA, ZONE, canonical_body, canonical_field, result, results, sign

from services.message.canonical import CanonicalBody, HeaderFields, relaxed_field
from services.message.dkim_record import key_record
from services.message.dkim_verify import DkimResult, hash_body, signatures, verify, wanted_bodies
from services.message.tag_list import BadTagList, base64_value, tag_list, without_tag
from services.protocol.dns_lookup import NoAnswer, NoSuchName, TemporaryFailure, answered

MESSAGE = PLAIN + BODY
OUTCOMES = {"pass", "fail", "neutral", "policy", "temperror", "permerror"}


# --- any octets ------------------------------------------------------------------------------------------------------

TAGS = st.lists(
    st.sampled_from(
        [
            b"v=1", b"a=rsa-sha256", b"c=relaxed/relaxed", b"c=x", b"d=example.org", b"d=", b"s=rsa", b"h=from:to", b"h=:",
            b"bh=AAAA", b"b=AAAA", b"b=", b"l=5", b"l=x", b"t=9", b"x=1", b"i=@example.org", b"i==4", b"q=dns/txt", b"z=|",
            b"\r\n ", b"", b"=", b"\xff=\xff", b"k=rsa",
        ]
    ),
    max_size=14,
).map(b";".join)  # fmt: skip


@given(st.one_of(st.binary(max_size=300), TAGS), st.binary(max_size=100))
def test_any_octets_as_a_signature(value: bytes, rest: bytes) -> None:
    header = b"DKIM-Signature: " + value + b"\r\nFrom: a@example.org\r\n" + rest
    found = signatures(header)
    for error in (None, NoSuchName("x"), NoAnswer("x"), TemporaryFailure("x")):
        asking = verify(found, header, hash_body([rest], wanted_bodies(found)), now=NOW)
        made = answered(asking, ZONE if error is None else {("rsa._domainkey.example.org", "TXT"): error})
        assert len(made) == len(found)
        assert all(each.result in OUTCOMES and (each.problem or each.result == "pass") for each in made)


RECORD_TAGS = st.lists(
    st.sampled_from([b"v=DKIM1", b"k=rsa", b"k=ed25519", b"k=", b"p=", b"p=AAAA", b"p=MIGf", b"h=", b"h=sha256", b"s=*", b"s=",
                     b"t=y", b"t=s:y", b"n=\xff", b"", b"="]),
    max_size=8,
).map(b";".join)  # fmt: skip


@given(
    st.one_of(st.binary(max_size=200), RECORD_TAGS, st.binary(max_size=90).map(lambda p: b"p=" + base64.b64encode(p)))
)
def test_any_octets_as_a_key(text: bytes) -> None:
    record = key_record(text)
    if record is not None:
        assert (record.key is None) == bool(record.problem)
        assert not record.verifies(b"x" * 64, b"y")


@given(st.binary(max_size=200))
def test_any_octets_as_a_tag_list(value: bytes) -> None:
    base64_value(value)
    assert len(without_tag(value, b"b")) <= len(value)
    try:
        tags = tag_list(value)
    except BadTagList:
        return
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) for name in tags)
    # Written again it reads the same.
    assert tag_list(b"; ".join(name.encode() + b"=" + text for name, text in tags.items())) == tags


# --- the canonical forms against a naive reading ---------------------------------------------------------------------

BODIES = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\0", b"\xff"]), max_size=24).map(
    b"".join
)


@given(BODIES, st.integers(1, 5))
def test_bodies_in_both_forms(body: bytes, size: int) -> None:
    for form in ("simple", "relaxed"):
        taken: list[bytes] = []
        canonical = CanonicalBody(form, taken.append)  # type: ignore[arg-type]
        for start in range(0, len(body), size):
            canonical.update(body[start : start + size])
        canonical.finish(taken.append)
        assert b"".join(taken) == canonical_body(body, form.encode())


VALUES = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n ", b"\r\n\t", b":", b"\xff", b"\x0c"]), max_size=12).map(
    b"".join
)


@given(st.sampled_from([b"Subject", b"X-a \t", b"FROM"]), VALUES)
def test_fields_in_relaxed_form(name: bytes, value: bytes) -> None:
    field = name + b":" + value + b"\r\n"
    assert relaxed_field(field) == canonical_field(field, b"relaxed")


@given(st.lists(st.sampled_from([b"a", b"b"]), max_size=8), st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=8))
def test_fields_are_taken_from_below(present: list[bytes], names: list[bytes]) -> None:
    """RFC 6376 §5.4.2, with and without a field that is the signature itself."""
    lines = [name.upper() + b": %d\r\n" % number for number, name in enumerate(present)]
    fields = HeaderFields(b"".join(lines))
    for but in (-1, 0, len(lines) // 2, len(lines) - 1):
        left = [(name, line) for number, (name, line) in enumerate(zip(present, lines, strict=True)) if number != but]
        expected = []
        for name in names:
            for index in range(len(left) - 1, -1, -1):
                if left[index][0] == name:
                    expected.append(left.pop(index)[1])
                    break
        assert fields.selected(names, "simple", but) == b"".join(expected)


# --- dkimpy ----------------------------------------------------------------------------------------------------------


def dkimpy_says(message: bytes, number: int = 0) -> bool:
    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        found = ZONE.get((name.decode("latin-1").lower().removesuffix("."), "TXT"))
        return bytes(found[0]) if isinstance(found, list) else None

    with mock.patch.object(dkim.time, "time", lambda: NOW):
        try:
            return bool(dkim.DKIM(message).verify(number, dnsfunc=look_up))
        except (dkim.DKIMException, dkim.InvalidTagValueList, ValueError, LookupError):
            return False  # it raises what it meets


def pem(private: object) -> bytes:
    from cryptography.hazmat.primitives import serialization

    form = serialization.PrivateFormat.TraditionalOpenSSL
    return private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())  # type: ignore[attr-defined,no-any-return]


def dkimpy_signs(message: bytes, header_form: bytes, body_form: bytes, names: list[bytes], length: bool) -> bytes:
    signer = dkim.DKIM(message, signature_algorithm=b"rsa-sha256")
    with mock.patch.object(dkim.time, "time", lambda: NOW):
        field = signer.sign(
            b"rsa", b"example.org", pem(RSA[2048]), canonicalize=(header_form, body_form), include_headers=names,
            length=length,
        )  # fmt: skip
    return bytes(field) + message


FIELDS = st.lists(
    st.tuples(
        st.sampled_from([b"Subject", b"X-Twice", b"To", b"cc"]),
        st.lists(st.sampled_from([b"a", b"  ", b"\t", b"\r\n ", b"b;", b"\xc3\xa9", b":"]), max_size=6).map(b"".join),
    ),
    max_size=6,
).map(lambda fields: b"".join(name + b": x" + value + b"y\r\n" for name, value in fields))
# Over SMTP a body ends with CRLF; of " " without one, relaxed, RFC 6376 §3.4.4 can be read in two ways.
TEXTS = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\xff", b"word "]), max_size=30).map(
    lambda parts: b"".join(parts) + b"\r\n"
)
FORMS = st.sampled_from([b"simple", b"relaxed"])


@settings(max_examples=60, deadline=None)
@given(FIELDS, TEXTS, FORMS, FORMS, st.booleans())
def test_what_dkimpy_signs_passes(
    fields: bytes, body: bytes, header_form: bytes, body_form: bytes, length: bool
) -> None:
    message = b"From: joe@example.org\r\n" + fields + b"\r\n" + body
    signed = dkimpy_signs(
        message, header_form, body_form, [b"from", b"from", b"subject", b"x-twice", b"x-twice", b"to"], length
    )
    found = result(signed)
    assert found.result == "pass", found
    assert found.counts_for_alignment == (not length)


EDITS = [
    (b"Subject: Is", b"Subject:  Is"), (b"Subject: Is", b"subject: Is"), (b"Subject: Is", b"Subject: Was"),
    (b"dinner", b"\r\n dinner"), (b"dinner", b"dinner\t "), (b"lost", b"won"), (b"lost the  game", b"lost the game"),
    (b"Hi.\r\n", b"Hi. \r\n"), (b"Joe.\r\n", b"Joe.\r\n\r\n"), (b"Joe.\r\n", b"Joe."), (b"\r\n\r\nHi.", b"\r\n\r\n\r\nHi."),
    (b"To: ", b"X-New: y\r\nTo: "), (b"To: ", b"Subject: two\r\nTo: "), (b"To: Suzie", b"To : Suzie"),
    (b"Date: Fri", b"DATE:Fri"), (b"Message-ID", b"message-id"), (b"; s=", b";\r\n\ts ="), (b"v=1", b"v=1 "),
    (b"example.org; s=", b"EXAMPLE.org; s="), (b"bh=", b"bh= "), (b"b=", b"b=\r\n "),
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(FORMS, FORMS, st.lists(st.sampled_from(EDITS), max_size=3), st.sampled_from([b"rsa-sha256", b"ed25519-sha256"]))
def test_dkimpy_agrees_on_what_was_changed(
    header_form: bytes, body_form: bytes, edits: list[tuple[bytes, bytes]], algorithm: bytes
) -> None:
    selector = b"ed" if algorithm.startswith(b"ed") else b"rsa"
    message = sign({"c": header_form + b"/" + body_form, "a": algorithm, "s": selector}) + MESSAGE
    for old, new in edits:
        message = message.replace(old, new, 1)
    if b"To :" in message:
        return  # dkimpy leaves white space before a colon in relaxed form: "WSP before the colon" goes (RFC 6376 §3.4.2)
    assert (result(message).result == "pass") == dkimpy_says(message), message


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 255))
def test_any_octet_changed(position: int, octet: int) -> None:
    """With both forms simple only the case of d=, s= and the like, and blanks in base64, are free to change: none of
    them in what is signed."""
    message = bytearray(sign({"c": b"simple/simple"}) + MESSAGE)
    position %= len(message)
    before = message[position]
    message[position] = octet
    found = results(bytes(message))
    if octet != before:
        assert not any(each.result == "pass" for each in found) or b"b=" in bytes(message[:position])
    assert any(each.result == "pass" for each in found) == dkimpy_says(bytes(message)) or octet in b"\r\n\t \0" + b""


def test_dkimpy_and_we_on_each_of_several_signatures() -> None:
    good = sign()
    ed = sign({"a": b"ed25519-sha256", "s": b"ed"}, private=ED25519)
    bad = sign({"bh": base64.b64encode(b"x" * 32)})
    message = bad + ed + good + MESSAGE
    assert [each.result for each in results(message)] == ["fail", "pass", "pass"]
    assert [dkimpy_says(message, number) for number in range(3)] == [False, True, True]


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [b";", b"a=b;", b"=", b" ", b"\r\n ", b"h=from:", b":", b"from:", b"a", b"b=", b"A", b"i=", b"=20", b"d=a.", b"\t \r\n", b"-", b"a."],
)  # fmt: skip
def test_a_megabyte_of_anything_takes_no_time(octets: bytes) -> None:
    many = octets * (1_000_000 // len(octets))
    usual = b"v=1; a=rsa-sha256; d=example.org; s=rsa; bh=AAAA; "
    started = time.process_time()
    for value in (many, usual + b"h=from" + many, usual + b"h=from; b=" + many, usual + b"h=from; b=AAAA; i=" + many,
                  usual.replace(b"d=example.org", b"d=" + many) + b"h=from; b=AAAA"):  # fmt: skip
        header = b"DKIM-Signature: " + value + b"\r\nFrom: a@example.org\r\n" + many + b"\r\n"
        found = signatures(header)
        answered(verify(found, header, hash_body([many], wanted_bodies(found)), now=NOW), ZONE)
    key_record(b"p=" + many)
    tag_list_or_none(many)
    assert time.process_time() - started < 5


def tag_list_or_none(value: bytes) -> dict[str, bytes] | None:
    try:
        return tag_list(value)
    except BadTagList:
        return None


def test_ten_signatures_over_a_header_of_a_megabyte() -> None:
    """Each field is put into relaxed form once, however many signatures name it."""
    header = b"".join(b"X-%d: %s\r\n" % (number, b"a  b " * 200) for number in range(1000)) + PLAIN
    names = b":".join([b"from", *(b"x-%d" % number for number in range(1000))])
    message = sign({"h": names}, header=header) * 10 + header + BODY
    started = time.process_time()
    assert [each.result for each in results(message)] == ["pass"] * 10
    assert time.process_time() - started < 3


def test_a_body_is_never_held() -> None:
    import tracemalloc

    forms = wanted_bodies(
        signatures(sign({"c": b"relaxed/relaxed"}) + sign({"c": b"simple/simple"}) + sign({"l": b"999"}))
    )
    chunk = b"a line  of text \r\n" * 3640
    tracemalloc.start()
    hash_body((chunk for _ in range(160)), forms)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * len(chunk), peak


def test_results_are_values() -> None:
    assert isinstance(result(sign() + MESSAGE), DkimResult)
