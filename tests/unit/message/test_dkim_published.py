"""DKIM and ARC against signed mail that others published: what dkimpy's source distribution has for its own tests.

Among it the message of RFC 6376 and RFC 8463 signed with both algorithms, mail signed by Gmail and by Exim, and one of
"Composition Kills". Keys are the published ones.
"""

import ast
import re

import pytest
from signedmail import chain_result, results

from services.message.dkim_record import key_record
from tests.published import member

DATA = "dkim/tests/data/"
RFC_8463_KEY = b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def data(name: str) -> bytes:
    return member("dkimpy", DATA + name)


def message(name: str) -> bytes:
    return re.sub(rb"\r?\n", b"\r\n", data(name))


def gmail_key() -> bytes:
    found = re.search(r'20120113\._domainkey\.gmail\.com\..*?"""(k=rsa; .*?)"""', suite(), re.S)
    assert found is not None
    return found[1].replace("\\\n", "").encode()


def suite(name: str = "test_dkim") -> str:
    return member("dkimpy", f"dkim/tests/{name}.py").decode()


def zone() -> dict[tuple[str, str], list[bytes]]:
    return {
        ("test._domainkey.football.example.com", "TXT"): [data("test.txt").strip()],
        ("brisbane._domainkey.football.example.com", "TXT"): [RFC_8463_KEY],
        ("sed._domainkey.test.ex", "TXT"): [data("eximtest.dns").strip()],
        ("test._domainkey.example.com", "TXT"): [data("test.txt").strip()],
        ("20120113._domainkey.gmail.com", "TXT"): [gmail_key()],
    }


# (file, results of its signatures)
MESSAGES = [
    ("rfc6376.signed.msg", ["pass", "pass"]),
    ("rfc6376.signed.rsa.msg", ["pass"]),
    ("rfc6376.signed.no_t.msg", ["fail"]),  # its x= was added by hand
    ("ed25519test2.msg", ["pass"]),
    ("test2.message", ["pass"]),
    ("test.message.baddomain", ["neutral"]),
    ("message.mbox", ["permerror"]),  # its key is gone
]


@pytest.mark.parametrize(("name", "expected"), MESSAGES, ids=[name for name, _ in MESSAGES])
def test_signed_messages(name: str, expected: list[str]) -> None:
    found = results(message(name), zone())
    assert [each.result for each in found] == expected, found


# (file, bits, 0 where it is no key that can be used)
KEYS = [
    ("1024_testkey_wo_markers.pub.txt", 1024),
    ("1024_testkey_wo_markers.pub.rsa.txt", 1024),
    ("2048_testkey_wo_markers.pub.txt", 2048),
    ("2048_testkey_wo_markers.pub.rsa.txt", 2048),
    ("2048_testkey_PKCS8.key.pub.txt", 2048),
    ("test.txt", 1024),
    ("test2.txt", 1024),
    ("ed25519test.dns", 256),
    ("eximtest.dns", 256),
    ("badversion.txt", 0),
    ("badk.txt", 0),
    ("test_bad.txt", 0),
    ("test_tlsrpt.txt", 0),
]


@pytest.mark.parametrize(("name", "bits"), KEYS, ids=[name for name, _ in KEYS])
def test_keys(name: str, bits: int) -> None:
    record = key_record(data(name).strip())
    assert (record.bits if record is not None and record.key is not None else 0) == bits, record


def test_a_sealed_message() -> None:
    lines = re.search(r"expected_sig = (\[.*?\])\n", suite("test_arc"), re.S)
    assert lines is not None
    sealed = b"".join(ast.literal_eval(lines[1])) + message("test.message")
    assert chain_result(sealed, zone()).result == "pass"
    with_h = re.search(r"sig_lines = (\[.*?\])\n\n", suite("test_arc"), re.S)
    assert with_h is not None
    broken = b"".join(ast.literal_eval(with_h[1])) + message("test.message")
    found = chain_result(broken, zone())
    assert (found.result, "must not" in found.problem) == ("fail", True), found
