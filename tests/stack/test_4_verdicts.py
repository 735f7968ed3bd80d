"""What smtp-in makes of mail from the world: forged, signed, broken, greylisted, smuggled, through a VPS, with a virus.

The outside's Postfix sends it by the world's DNS; what was decided is read back as its owner would, by `explain`.
"""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import dkim
import mailclients
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from mailclients import letter, until
from stack import Stack, must

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"


def stories(stack: Stack, query: str) -> list[dict[str, Any]]:
    """What `explain` finds, also where that is nothing (it ends with 1 then)."""
    found: list[dict[str, Any]] = json.loads(stack.script("mailstead", "--json", "explain", query).output)["found"]
    return found


def explained(stack: Stack, query: str, stage: str = "data") -> dict[str, Any]:
    """What `explain` says of the newest message, with the rules of one stage by name as `by_name`."""

    def look() -> dict[str, Any] | None:
        found = stories(stack, query)
        if not found or not any(each["stage"] == stage for each in found[0]["stages"]):
            return None
        return dict(found[0])

    story = until(look, 30, every=0.5)
    assert story is not None
    told = [each for each in story["stages"] if each["stage"] == stage][-1]
    story["by_name"] = {rule["rule"]: rule for rule in told["rules"]}
    story["told"] = told
    return story


def sent(stack: Stack, envelope: str, recipient: str, *, sender: str = "", body: bytes = b"Hello.\r\n") -> str:
    """Have the outside's Postfix send a letter; its Message-ID."""
    made = letter(sender or envelope, recipient, body=body)
    stack.sent_from_outside(envelope, recipient, made.message)
    return made.message_id


# --- as it is set up by itself


def test_honest_mail_is_accepted_with_every_proof_told(stack: Stack, ann: str) -> None:
    message_id = sent(stack, "friend@outside.test", ann)
    read = stack.letter(ann, message_id).decode()
    results = re.findall(r"^Authentication-Results: mail\.example\.test;((?:.*\r\n)(?:[ \t].*\r\n)*)", read, re.M)
    assert len(results) == 1 and "spf=pass" in results[0] and "dmarc=" in results[0], read
    story = explained(stack, message_id)
    assert story["outcome"] == "accept" and "spf-pass" in story["by_name"]
    assert any(line.startswith("TXT outside.test") and "v=spf1" in line for line in story["told"]["dns"])


def test_a_forged_bank_lands_in_junk_and_the_owner_reads_why(stack: Stack, ann: str) -> None:
    message_id = sent(stack, "ceo@strict.test", ann)
    story = explained(stack, message_id)
    assert story["outcome"] == "junk", story
    assert {"spf-fail", "dmarc-fail-reject"} <= set(story["by_name"])
    assert stack.letter(ann, message_id, mailbox="Junk")
    english = stack.command("explain", message_id)
    chinese = stack.command("explain", "--lang", "zh", message_id)
    assert "strict.test" in english and "SPF_FAIL" in english + json.dumps(story)
    assert re.search("[\u4e00-\u9fff]{4}", chinese) and "strict.test" in chinese


@pytest.fixture(scope="module")
def key(stack: Stack) -> bytes:
    """A DKIM key of signed.test, published."""
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()
    knotc = ("knotc", "-c", "/etc/knot/world.conf")
    must(stack.execute("world-dns", *knotc, "zone-begin", "signed.test"))
    chunks = " ".join(f'"{text[start : start + 200]}"' for start in range(0, len(text), 200))
    must(stack.execute("world-dns", *knotc, "zone-set", "signed.test", "k1._domainkey", "60", "TXT", chunks))
    must(stack.execute("world-dns", *knotc, "zone-commit", "signed.test"))
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def signed(message: bytes, key: bytes) -> bytes:
    field: bytes = dkim.sign(message, b"k1", b"signed.test", key, include_headers=[b"from", b"to", b"subject", b"date"])
    return field + message


def test_a_signature_carries_mail_through_a_server_that_spf_does_not_know(stack: Stack, ann: str, key: bytes) -> None:
    made = letter("friend@signed.test", ann)
    stack.sent_from_outside("bounces@strict.test", ann, signed(made.message, key))
    story = explained(stack, made.message_id)
    assert {"spf-fail", "dkim-pass", "dmarc-pass"} <= set(story["by_name"]), story
    assert story["outcome"] == "accept"


def test_a_broken_signature_is_told_and_counts_as_none(stack: Stack, ann: str, key: bytes) -> None:
    made = letter("friend@signed.test", ann, body=b"pay 10\r\n")
    forged = signed(made.message, key).replace(b"pay 10", b"pay 99")
    stack.sent_from_outside("bounces@strict.test", ann, forged)
    story = explained(stack, made.message_id)
    assert {"dkim-fail", "dmarc-fail-reject"} <= set(story["by_name"]) and story["outcome"] == "junk"


def test_two_authors_are_refused_at_the_door(stack: Stack, ann: str) -> None:
    made = letter("friend@outside.test", ann)
    two = made.message.replace(b"Subject:", b"From: ceo@strict.test\r\nSubject:", 1)
    stack.sent_from_outside("friend@outside.test", ann, two)
    story = explained(stack, made.message_id)
    assert story["outcome"] == "reject" and "two-froms" in story["by_name"]
    assert until(
        lambda: re.findall(r"status=bounced \(host mail.example.test.* said: 550 ", stack.logs("world-outside"))
    )


# Smuggling, as in CVE-2023-51764 and its kin: a second message behind an end that is none. From inside the outside's
# container, since no Postfix sends such a thing.
SMUGGLED = r"""
exec 3<>/dev/tcp/$1/25
read -r greeting <&3
printf 'EHLO client.outside.test\r\n' >&3
while read -r line <&3; do [[ $line == 250-* ]] || break; done
printf 'MAIL FROM:<friend@outside.test>\r\nRCPT TO:<%s>\r\nDATA\r\n' "$2" >&3
read -r line <&3; read -r line <&3; read -r line <&3
printf 'Message-ID: %s\r\nSubject: one\r\n\r\nHello\r\n'"$4"'MAIL FROM:<ceo@strict.test>\r\nRCPT TO:<%s>\r\nDATA\r\nMessage-ID: %s\r\n\r\ntwo\r\n.\r\nQUIT\r\n' "$3" "$2" "x$3" >&3
timeout 10 cat <&3
"""


@pytest.mark.parametrize("end", [r"\n.\n", r"\n.\r\n", r"\r\n.\n", r"\r.\r", r"\r\n.\r", r"\r\n\0.\r\n", r"\n.\r"])
def test_a_smuggled_message_does_not_come_in(stack: Stack, ann: str, end: str) -> None:
    made = letter("friend@outside.test", ann)
    done = stack.execute(
        "world-outside", "bash", "-c", SMUGGLED, "smuggle", f"{stack.subnet}.130", ann, made.message_id, end
    )
    assert done.output.count("delivered") <= 1, done.output
    assert not stories(stack, f"x{made.message_id}"), "there is no second message"


# --- through a machine of the owner's


def refreshed(stack: Stack, filter: dict[str, str], edge: dict[str, str]) -> None:
    stack.write_env("filter", filter)
    stack.write_env("edge", edge)
    stack.up()


@pytest.fixture(scope="module")
def behind(stack: Stack, ann: str) -> Iterator[str]:
    """The stack behind a VPS and an HAProxy, with greylisting on: an account at via.test."""
    shown = must(
        stack.execute(
            "world-outside", "openssl", "x509", "-in", "/etc/world/tls.pem", "-noout", "-fingerprint", "-sha256"
        )
    )
    refreshed(
        stack,
        {"GREYLIST": "yes", "GREYLIST_SECONDS": "10"},
        {
            "TRUSTED_FORWARDERS": f"{stack.subnet}.133",
            "TRUSTED_FORWARDER_CERTS": shown.strip().partition("=")[2],
            "PROXY_PEERS": f"{stack.subnet}.132",
        },
    )
    must(stack.compose("--profile", "vps", "up", "-d", "world-vps", "world-haproxy"))
    stack.command("domain", "add", "via.test")
    stack.account("cat@via.test")
    yield "cat@via.test"
    must(stack.compose("--profile", "vps", "rm", "-sf", "world-vps", "world-haproxy"))
    refreshed(stack, {}, {})


def test_a_first_letter_waits_a_little_and_comes(stack: Stack, ann: str, behind: str) -> None:
    """By the HAProxy's second port, which says that its clients have an address of the internet: a house's own machines
    do not wait."""
    must(
        stack.execute(
            "world-outside", "postconf", "-e", f"transport_maps = inline:{{late.test=smtp:[{stack.subnet}.132]:26}}"
        )
    )
    must(stack.execute("world-outside", "postfix", "reload"))
    stack.command("domain", "add", "late.test")
    stack.account("dan@late.test")
    message_id = sent(stack, "newcomer@nowhere.test", "dan@late.test")
    waited = explained(stack, "newcomer@nowhere.test", stage="rcpt")
    assert waited["outcome"] == "defer" and "greylist" in waited["by_name"], json.dumps(waited, indent=1)
    story = explained(stack, message_id)
    assert story["outcome"] in ("accept", "junk") and story["peer"] == "198.51.100.7", story


@pytest.mark.parametrize("forward", ["", "xforward"])
def test_through_a_vps_the_true_client_is_judged(stack: Stack, behind: str, forward: str) -> None:
    if forward:
        must(stack.execute("world-vps", "postconf", "-e", "smtp_send_xforward_command = yes"))
        must(stack.execute("world-vps", "postfix", "reload"))
    honest, forged = sent(stack, "friend@outside.test", behind), sent(stack, "ceo@strict.test", behind)
    story = explained(stack, honest)
    assert story["outcome"] == "accept" and "spf-pass" in story["by_name"], story
    assert f"{stack.subnet}.134" in json.dumps(story["told"]), "the outside's address, not the VPS's"
    assert "greylist" not in json.dumps(story), "a machine of the owner's does not wait"
    story = explained(stack, forged)
    assert story["outcome"] == "junk" and "spf-fail" in story["by_name"], story


def test_a_stranger_is_not_believed_about_its_client(stack: Stack, ann: str, behind: str) -> None:
    script = (
        f"exec 3<>/dev/tcp/{stack.subnet}.130/25; read -r line <&3; printf 'EHLO x.outside.test\\r\\n' >&3;"
        'while read -r line <&3; do echo "$line"; [[ $line == 250-* ]] || break; done;'
        "printf 'XCLIENT ADDR=192.0.2.1\\r\\nXFORWARD ADDR=192.0.2.1\\r\\nQUIT\\r\\n' >&3; timeout 5 cat <&3"
    )
    said = stack.execute("world-outside", "bash", "-c", script).output
    assert "XCLIENT" not in said and "XFORWARD" not in said
    assert len(re.findall(r"^5\d\d ", said, re.M)) == 2, said


def test_haproxy_tells_the_true_client_and_nobody_else_may(stack: Stack, ann: str, behind: str) -> None:
    made = letter("friend@outside.test", ann)
    done = stack.execute(
        "world-outside", "bash", "-c",
        "exec 3<>/dev/tcp/$1/25; read -r line <&3; printf 'EHLO mx.outside.test\r\n' >&3; "
        "while read -r line <&3; do [[ $line == 250-* ]] || break; done; "
        "printf 'MAIL FROM:<friend@outside.test>\r\nRCPT TO:<%s>\r\nDATA\r\n' \"$2\" >&3; "
        "for i in 1 2 3; do read -r line <&3; done; cat >&3; printf '.\r\nQUIT\r\n' >&3; timeout 20 cat <&3",
        "proxied", f"{stack.subnet}.132", ann, stdin=made.message,
    )  # fmt: skip
    assert "delivered" in done.output, done.output
    story = explained(stack, made.message_id)
    assert "spf-pass" in story["by_name"] and story["peer"] == f"{stack.subnet}.134", story
    closed = stack.execute(
        "world-outside", "bash", "-c", f"exec 3<>/dev/tcp/{stack.subnet}.130/10025; printf 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n' >&3; "
        "timeout 5 cat <&3",
    )  # fmt: skip
    assert "220" not in closed.output


# --- with scanners


@pytest.fixture(scope="module")
def scanned(stack: Stack, ann: str) -> Iterator[Stack]:
    """ClamAV, which knows one virus here, and rspamd."""
    refreshed(stack, {"SPAM_SCANNER": "rspamd", "VIRUS_SCANNER": "clamav"}, {})
    signature = "44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test-Signature"
    must(stack.execute("clamav", "bash", "-c", f"printf %s {signature} >/var/lib/clamav/test.hdb"))
    must(stack.compose("restart", "clamav"))
    until(lambda: stack.execute("clamav", "healthcheck").output.strip() == "answers", 60)
    yield stack
    refreshed(stack, {}, {})
    left = must(stack.compose("--profile", "*", "ps", "--services"))
    assert not {"clamav", "rspamd", "spamassassin"} & set(left.split()), "who is not wanted any more is gone"


def attached(ann: str, octets: bytes) -> mailclients.Letter:
    body = (
        b"--b\r\n\r\nsee there\r\n--b\r\nContent-Type: application/octet-stream; name=a.bin\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(octets) + b"\r\n--b--\r\n"
    )
    return letter(
        "friend@outside.test",
        ann,
        body=body,
        headers='MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n',
    )


def test_a_virus_is_refused_and_its_name_told(scanned: Stack, ann: str) -> None:
    made = attached(ann, EICAR)
    scanned.sent_from_outside("friend@outside.test", ann, made.message)
    story = explained(scanned, made.message_id)
    assert story["outcome"] == "reject" and "Eicar-Test-Signature" in story["by_name"]["scanner-virus"]["text"], story


def test_what_rspamd_calls_junk_lands_in_junk(scanned: Stack, ann: str) -> None:
    message_id = sent(scanned, "friend@outside.test", ann, body=GTUBE)
    story = explained(scanned, message_id)
    assert story["outcome"] == "junk" and story["by_name"]["scanner-spam"]["weight"] >= 5, story


def test_without_its_scanner_mail_comes_and_says_so(scanned: Stack, ann: str) -> None:
    must(scanned.compose("stop", "-t", "2", "rspamd"))
    message_id = sent(scanned, "friend@outside.test", ann)
    story = explained(scanned, message_id)
    assert story["outcome"] == "accept" and "scanner-down" in story["by_name"], story


def test_spamassassin_takes_its_place(scanned: Stack, ann: str) -> None:
    refreshed(scanned, {"SPAM_SCANNER": "spamassassin"}, {})
    message_id = sent(scanned, "friend@outside.test", ann, body=GTUBE)
    story = explained(scanned, message_id)
    assert story["outcome"] == "junk" and "GTUBE" in story["by_name"]["scanner-spam"]["text"], story
