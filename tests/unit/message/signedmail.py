"""Signed messages made by hand: a signer that writes what it is told, right or wrong, with its own canonical forms.

What `dkim_verify` is tested with must not come from the code it shares with our signer. Here each form is a naive
reading of RFC 6376 over the whole message.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from services.message.arc import ArcResult, read_chain, validate
from services.message.dkim_verify import DkimResult, hash_body, signatures, verify, wanted_bodies
from services.protocol.dns_lookup import Answer, DnsError, answered

NOW = 1_700_000_000
PLAIN = (
    b"From: Joe <joe@example.org>\r\nTo: Suzie <suzie@example.net>\r\nSubject: Is dinner ready?\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700\r\nMessage-ID: <1@example.org>\r\n\r\n"
)
BODY = b"Hi.\r\n\r\nWe lost the  game.\tAre you hungry yet?\r\n\r\nJoe.\r\n"
RSA = {bits: rsa.generate_private_key(65537, bits) for bits in (1024, 2048)}
ED25519 = ed25519.Ed25519PrivateKey.generate()

Private = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def public_text(private: Private, form: str = "SubjectPublicKeyInfo") -> bytes:
    """p= for a key: DER for RSA, 32 octets for Ed25519."""
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return base64.b64encode(private.public_key().public_bytes_raw())
    encoded = private.public_key().public_bytes(serialization.Encoding.DER, getattr(serialization.PublicFormat, form))
    return base64.b64encode(encoded)


ZONE: dict[tuple[str, str], Answer | DnsError] = {
    ("rsa._domainkey.example.org", "TXT"): [b"v=DKIM1; k=rsa; p=" + public_text(RSA[2048])],
    ("small._domainkey.example.org", "TXT"): [b"p=" + public_text(RSA[1024])],
    ("ed._domainkey.example.org", "TXT"): [b"v=DKIM1; k=ed25519; p=" + public_text(ED25519)],
}


def canonical_body(body: bytes, form: bytes) -> bytes:
    """RFC 6376 §3.4.3 and §3.4.4 over a whole body."""
    lines = body.split(b"\r\n")
    if form == b"relaxed":
        lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return b"" if form == b"relaxed" else b"\r\n"
    return b"".join(line + b"\r\n" for line in lines)


def canonical_field(field: bytes, form: bytes) -> bytes:
    """RFC 6376 §3.4.1 and §3.4.2."""
    if form == b"simple":
        return field
    name, _, value = field.partition(b":")
    value = re.sub(rb"\r\n(?=[ \t])", b"", value).removesuffix(b"\r\n")
    return name.rstrip(b" \t").lower() + b":" + re.sub(rb"[ \t]+", b" ", value).strip(b" ") + b"\r\n"


def octets_to_sign(header: bytes, own: bytes, names: list[bytes], form: bytes) -> bytes:
    """RFC 6376 §3.7: the fields named, from below, then the signature's own field, which has an empty b=."""
    fields = re.findall(rb"[^\r\n][^\n]*\r\n(?:[ \t][^\n]*\r\n)*", header)
    used: set[int] = set()
    parts = []
    for name in names:
        for index in range(len(fields) - 1, -1, -1):
            if index not in used and fields[index].partition(b":")[0].rstrip(b" \t").lower() == name.lower().strip():
                used.add(index)
                parts.append(canonical_field(fields[index], form))
                break
    return b"".join(parts) + canonical_field(own, form).removesuffix(b"\r\n")


def sign(
    tags: Mapping[str, bytes | None] | None = None,
    *,
    header: bytes = PLAIN,
    body: bytes = BODY,
    private: Private | None = None,
    between: bytes = b"; ",
    field: bytes = b"DKIM-Signature: ",
) -> bytes:
    """A DKIM-Signature for `header` (with its empty line) and `body`. `tags` change the usual ones; None leaves one
    out. bh= and b= are right for what the others say, unless they are given."""
    given = dict(tags or {})
    usual: dict[str, bytes | None] = {
        "v": b"1", "a": b"rsa-sha256", "c": b"relaxed/relaxed", "d": b"example.org", "s": b"rsa",
        "h": b"from:to:subject:date:message-id",
    }  # fmt: skip
    usual.update({name: value for name, value in given.items() if name not in ("bh", "b")})
    algorithm = usual["a"] or b""
    of_header, _, of_body = (usual["c"] or b"simple/simple").partition(b"/")
    length = int(usual["l"]) if (usual.get("l") or b"").isdigit() else None  # type: ignore[arg-type]
    digest = hashlib.sha256(canonical_body(body, of_body or b"simple")[:length]).digest()
    usual["bh"] = given.get("bh", base64.b64encode(digest))
    own = field + between.join(name.encode() + b"=" + value for name, value in usual.items() if value is not None)
    own += between + b"b="
    data = octets_to_sign(header, own, (usual["h"] or b"").split(b":"), of_header)
    key = private or (ED25519 if algorithm.startswith(b"ed") else RSA[2048])
    if isinstance(key, ed25519.Ed25519PrivateKey):
        value = key.sign(hashlib.sha256(data).digest())
    else:
        hashing = hashes.SHA1() if algorithm == b"rsa-sha1" else hashes.SHA256()
        value = key.sign(data, padding.PKCS1v15(), hashing)
    return own + (given.get("b") or base64.b64encode(value)) + b"\r\n"


def results(
    message: bytes, zone: Mapping[tuple[str, str], Answer | DnsError] = ZONE, now: float = NOW
) -> list[DkimResult]:
    """What the verifier makes of a whole message."""
    header, _, body = message.partition(b"\r\n\r\n")
    header += b"\r\n"
    found = signatures(header)
    return answered(verify(found, header, hash_body([body], wanted_bodies(found)), now=now), zone)


def result(message: bytes, zone: Mapping[tuple[str, str], Answer | DnsError] = ZONE, now: float = NOW) -> DkimResult:
    """For a message with one signature."""
    (one,) = results(message, zone, now)
    return one


def seal(
    message: bytes,
    results: bytes = b"list.example; dkim=pass header.d=example.org; dmarc=pass header.from=example.org",
    *,
    instance: int = 0,
    cv: bytes = b"",
    message_tags: Mapping[str, bytes | None] | None = None,
    seal_tags: Mapping[str, bytes | None] | None = None,
    d: bytes = b"list.example",
    private: Private | None = None,
    s: bytes = b"rsa",
) -> bytes:
    """`message` with one ARC set more on top (RFC 8617 §5.1), by default the right one."""
    header, _, body = message.partition(b"\r\n\r\n")
    header += b"\r\n"
    number = b"%d" % (instance or header.lower().count(b"arc-seal:") + 1)
    cv = cv or (b"none" if number == b"1" else b"pass")
    aar = b"ARC-Authentication-Results: i=" + number + b"; " + results + b"\r\n"
    a = b"ed25519-sha256" if isinstance(private, ed25519.Ed25519PrivateKey) else b"rsa-sha256"
    tags = {"v": None, "a": a, "i": number, "d": d, "s": s, **(message_tags or {})}
    ams = sign(tags, header=header, body=body, private=private, field=b"ARC-Message-Signature: ")
    sets = _sets(header)
    own: dict[str, bytes | None] = {"i": number, "cv": cv, "a": a, "d": d, "s": s, **(seal_tags or {})}
    empty = b"ARC-Seal: " + b"; ".join(n.encode() + b"=" + v for n, v in own.items() if v is not None) + b"; b="
    data = b"".join(canonical_field(field, b"relaxed") for field in (*sets, aar, ams, empty + b"\r\n"))
    data = data.removesuffix(b"\r\n")
    if isinstance(private, ed25519.Ed25519PrivateKey):
        value = private.sign(hashlib.sha256(data).digest())
    else:
        value = (private or RSA[2048]).sign(data, padding.PKCS1v15(), hashes.SHA256())
    return empty + base64.b64encode(value) + b"\r\n" + ams + aar + message


def _sets(header: bytes) -> Sequence[bytes]:
    """The fields of the sets there are, in the order in which a seal covers them (RFC 8617 §5.1.1)."""
    fields = re.findall(rb"[^\r\n][^\n]*\r\n(?:[ \t][^\n]*\r\n)*", header)
    order = [b"arc-authentication-results", b"arc-message-signature", b"arc-seal"]
    found = []
    for field in fields:
        name = field.partition(b":")[0].lower()
        if name in order:
            number = re.search(rb"[\s;:]i\s*=\s*(\d+)", field)
            assert number is not None
            found.append((int(number[1]), order.index(name), field))
    return [field for _, _, field in sorted(found)]


def chain_result(message: bytes, zone: Mapping[tuple[str, str], Answer | DnsError], now: float = NOW) -> ArcResult:
    """What the ARC validator makes of a whole message."""
    header, _, body = message.partition(b"\r\n\r\n")
    header += b"\r\n"
    chain = read_chain(header)
    return answered(validate(chain, header, hash_body([body], chain.wanted_bodies()), now=now), zone)
