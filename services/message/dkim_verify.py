"""Verifies the DKIM signatures of a message (RFC 6376, Ed25519 by RFC 8463, algorithms and sizes by RFC 8301).

Called by smtp-in when a message is whole. Four steps, so that a body is read once, in chunks, and may be anywhere:

    found = signatures(header)                     # every DKIM-Signature, read; a broken one has a `problem`
    hashes = hash_body(chunks, wanted_bodies(found))
    results = yield from verify(found, header, hashes, now=now)   # asks for the keys

What an enemy sends: signatures without number (the topmost `MOST_SIGNATURES` are verified, the others reported), keys
of any size (`dkim_record`), headers of megabytes (everything is linear in them). Nothing here raises for what is in a
message. A signature that fails proves nothing, and is held against nobody: lists break them (RFC 6376 §6.1, RFC 6377).
A DNS that does not answer makes a `temperror`, which is no reason to refuse (RFC 6376 §6.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from services.message.body_hash import BodyForm, BodyHashes
from services.message.canonical import Form, HeaderFields, relaxed_value
from services.message.dkim_record import KeyRecord, key_record
from services.message.tag_list import BadTagList, base64_value, tag_list, unfolded, without_tag
from services.protocol.dns_lookup import Asking, DnsError, NoAnswer, NoSuchName, Question
from services.protocol.idn import a_labels

__all__ = ["BodyForm", "DkimResult", "Signature", "hash_body", "signatures", "verify", "wanted_bodies"]

Kind = Literal["dkim", "message", "seal"]
Outcome = Literal["pass", "fail", "neutral", "policy", "temperror", "permerror"]

# A mailing list with a forwarder behind it makes four or five. Each costs a look-up and up to a millisecond.
MOST_SIGNATURES = 10
# RFC 6376 §3.6.2.2: several key records at one name are undefined; a key that is being replaced is met there.
MOST_KEYS = 3
# Of a name that DNS can hold (RFC 1035 §2.3.4: 255 octets as they are sent).
MOST_CHARACTERS = 253
# Between the sender's clock and ours. RFC 6376 §3.5 lets signatures of the future be ignored; nobody gains by making
# one, so only what no clock or zone explains is refused.
CLOCK_TOLERANCE = 36_000

# RFC 6376 §3.5 d=: a domain name has at least two labels; s= one. Underscores are no host names, but are met. Nothing
# else: what is asked of DNS must be what alignment compares, and no NUL or "(" makes two names of one ("Composition
# Kills", Chen, Paxson, Jiang 2020, §4.2).
_LABEL = rb"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rb"(?=.{1,253}\Z)" + _LABEL + rb"(?:\." + _LABEL + rb")+\Z")
_SELECTOR = re.compile(rb"(?=.{1,253}\Z)" + _LABEL + rb"(?:\." + _LABEL + rb")*\Z")
_NUMBER = re.compile(rb"[0-9]{1,12}\Z")
# RFC 6376 §3.5 l=: up to 76 digits. A body that has more octets than 18 digits say does not exist.
_LENGTH = re.compile(rb"[0-9]{1,76}\Z")
_QUOTED = re.compile(rb"=([0-9A-Fa-f]{2})")
_HEX_ONLY = re.compile(rb"(?:[^=]|=[0-9A-Fa-f]{2})*\Z")
_ALGORITHM = re.compile(rb"[a-z][a-z0-9]*-[a-z][a-z0-9]*\Z")
_FORMS: dict[bytes, Form] = {b"simple": "simple", b"relaxed": "relaxed"}
# RFC 6376 §3.5; RFC 8617 §4.1.2: no v=, and i= is the set's number; §4.1.3.
_REQUIRED: dict[Kind, tuple[str, ...]] = {
    "dkim": ("v", "a", "b", "bh", "d", "h", "s"),
    "message": ("a", "b", "bh", "d", "h", "s"),
    "seal": ("a", "b", "d", "s"),
}


@dataclass(frozen=True, slots=True)
class Signature:
    """A DKIM-Signature field as it was read. With a `problem` it is not verified, and `result` is its outcome."""

    index: int  # which field of the header it is
    result: Outcome = "pass"
    problem: str = ""
    domain: str = ""  # d=, A-labels in lower case
    selector: str = ""
    identity: str = ""  # i=, decoded; "@" and d= where the signature has none
    algorithm: str = ""
    header_form: Form = "simple"
    body: BodyForm | None = None
    names: tuple[bytes, ...] = ()  # h=, lower case
    body_hash: bytes = b""
    value: bytes = b""  # b=, decoded
    mark: str = ""  # the first eight characters of b=, which tell signatures apart (RFC 8601 §2.7.1, header.b)
    expires: int | None = None
    signed_at: int | None = None


@dataclass(frozen=True, slots=True)
class DkimResult:
    """What became of one signature, in the words of RFC 8601 §2.7.1.

    `problem` is a sentence for the owner, "" where there is none. `counts_for_alignment`: it passed, and covers the
    whole body. `key_bits`: of RSA keys, 256 for Ed25519, 0 where no key was read.
    """

    result: Outcome
    domain: str
    selector: str
    identity: str = ""
    algorithm: str = ""
    key_bits: int = 0
    problem: str = ""
    counts_for_alignment: bool = False
    testing: bool = False
    mark: str = ""


class _Refused(Exception):
    """The signature cannot be verified. `result` says in which of RFC 8601's words."""

    def __init__(self, problem: str, result: Outcome = "permerror") -> None:
        super().__init__(problem)
        self.result: Outcome = result


def signatures(header: bytes) -> list[Signature]:
    """Every DKIM-Signature field of `header`, top to bottom."""
    fields = HeaderFields(header)
    found = []
    for number, index in enumerate(fields.named(b"dkim-signature")):
        if number < MOST_SIGNATURES:
            found.append(read_signature(fields.value(index), index))
        else:
            problem = f"not looked at: only the first {MOST_SIGNATURES} signatures are"
            found.append(Signature(index, "neutral", problem))
    return found


def read_signature(value: bytes, index: int, kind: Kind = "dkim") -> Signature:
    """One signature from its field's value. `kind`: "message" and "seal" are ARC's (RFC 8617 §4.1.2, §4.1.3)."""
    known: dict[str, str] = {}
    try:
        tags = tag_list(value.removesuffix(b"\r\n"))
    except BadTagList as error:
        # RFC 8601 §2.7.1 neutral: "the signature or signatures contained syntax errors".
        return Signature(index, "neutral", f"the signature cannot be read: {error}")
    try:
        return _signature(tags, index, kind, known)
    except _Refused as refused:
        return Signature(
            index,
            refused.result,
            str(refused),
            domain=known.get("d", ""),
            selector=known.get("s", ""),
            algorithm=known.get("a", ""),
        )


def _signature(tags: dict[str, bytes], index: int, kind: Kind, known: dict[str, str]) -> Signature:
    """RFC 6376 §6.1.1, in its order. What was read before a refusal stays in `known`, so that the trace names it."""
    for tag in _REQUIRED[kind]:
        if tag not in tags:
            raise _Refused(f"the signature has no {tag}=")
    domain = known["d"] = _name(tags["d"], _DOMAIN, "d")
    selector = known["s"] = _name(tags["s"], _SELECTOR, "s")
    if kind == "dkim" and tags["v"] != b"1":
        raise _Refused("the signature's v= is not 1")
    algorithm = known["a"] = _algorithm(tags["a"])
    signature = base64_value(tags["b"])
    if not signature:
        raise _Refused("the signature is no base64", "neutral")
    if kind == "seal":
        # RFC 8617 §4.1.3: it covers the ARC sets and nothing else, always in relaxed form.
        if "h" in tags or "bh" in tags:
            raise _Refused("the seal has h= or bh=, which it must not")
        _number(tags, "t")  # its time is nobody's limit, but is one or the field is broken
        return Signature(
            index,
            domain=domain,
            selector=selector,
            identity=f"@{domain}",
            algorithm=algorithm,
            header_form="relaxed",
            value=signature,
        )
    header_form, body_form = _forms(tags.get("c", b"simple/simple"))
    names = tuple(name for part in tags["h"].split(b":") if (name := part.strip(b" \t").lower()))
    if b"from" not in names:
        # RFC 6376 §3.5 h=, §5.4: without it the signature says nothing of who wrote the message.
        raise _Refused("the signature does not cover From")
    if kind == "message" and b"arc-seal" in names:
        raise _Refused("the signature covers an ARC-Seal, which it must not")  # RFC 8617 §4.1.2
    if "q" in tags and b"dns/txt" not in [way.strip(b" \t").lower() for way in tags["q"].split(b":")]:
        raise _Refused("the signature's key is not in DNS (q=)")
    body_hash = base64_value(tags["bh"])
    if not body_hash:
        raise _Refused("the signature is no base64", "neutral")
    signed_at, expires = _number(tags, "t"), _number(tags, "x")
    if signed_at is not None and expires is not None and expires <= signed_at:
        raise _Refused("the signature ends before it begins (x= and t=)", "neutral")  # RFC 6376 §3.5 x=
    return Signature(
        index,
        domain=domain,
        selector=selector,
        identity=_identity(tags.get("i") if kind == "dkim" else None, domain),
        algorithm=algorithm,
        header_form=header_form,
        body=BodyForm(body_form, _length(tags)),
        names=names,
        body_hash=body_hash,
        value=signature,
        mark=re.sub(rb"[ \t]+", b"", tags["b"])[:8].decode("ascii"),
        expires=expires,
        signed_at=signed_at,
    )


def _name(text: bytes, grammar: re.Pattern[bytes], tag: str) -> str:
    name = text.lower()
    if not name.isascii():
        try:
            name = a_labels(text.decode("utf-8")).encode("ascii")  # RFC 8616 §5
        except ValueError:
            name = b""
    if not grammar.match(name):
        raise _Refused(f"the signature's {tag}= is no domain name", "neutral")
    return name.decode("ascii")


def _algorithm(text: bytes) -> str:
    name = text.lower()
    if name in (b"rsa-sha256", b"ed25519-sha256"):
        return name.decode("ascii")
    if name == b"rsa-sha1":
        raise _Refused("signed with rsa-sha1, which anybody with money can forge")  # RFC 8301 §3.1
    raise _Refused("the signature's algorithm is not known here", "neutral")


def _forms(text: bytes) -> tuple[Form, Form]:
    """RFC 6376 §3.5 c=: of header and of body; "simple" for a body that is not named."""
    of_header, _, of_body = text.lower().partition(b"/")
    try:
        return _FORMS[of_header], _FORMS[of_body or b"simple"]
    except KeyError:
        raise _Refused("the signature's canonical form (c=) is not known here", "neutral") from None


def _number(tags: dict[str, bytes], tag: str) -> int | None:
    if tag not in tags:
        return None
    if not _NUMBER.match(tags[tag]):
        raise _Refused(f"the signature's {tag}= is no number", "neutral")
    return int(tags[tag])


def _length(tags: dict[str, bytes]) -> int | None:
    if "l" not in tags:
        return None
    if not _LENGTH.match(tags["l"]):
        raise _Refused("the signature's l= is no number", "neutral")
    return min(int(tags["l"]), 10**18)


def _identity(text: bytes | None, domain: str) -> str:
    """i= decoded (RFC 6376 §2.11). Its domain is d= or below that, or the signature is refused (§6.1.1)."""
    if text is None:
        return f"@{domain}"
    packed = re.sub(rb"[ \t]+", b"", text)
    if not _HEX_ONLY.match(packed):
        raise _Refused("the signature's i= cannot be read", "neutral")
    decoded = _QUOTED.sub(lambda match: bytes((int(match[1], 16),)), packed)
    local, at, host = decoded.rpartition(b"@")
    if not at:
        raise _Refused("the signature's i= has no domain", "neutral")
    name = _name(host, _DOMAIN, "i")
    if name != domain and not name.endswith("." + domain):
        raise _Refused("the signature's i= is outside of its d=")
    return f"{local.decode('utf-8', 'backslashreplace')}@{name}"


def wanted_bodies(found: Iterable[Signature]) -> set[BodyForm]:
    """In which forms the body is to be hashed for these signatures."""
    return {signature.body for signature in found if signature.body is not None and not signature.problem}


def hash_body(chunks: Iterable[bytes], forms: Iterable[BodyForm]) -> dict[BodyForm, bytes]:
    """The body's hashes in one pass; b"" for a form that wants more octets than there are (see `BodyHashes`)."""
    hashes = BodyHashes(forms)
    for chunk in chunks:
        hashes.update(chunk)
    return hashes.digests()


def verify(
    found: Sequence[Signature], header: bytes, body_hashes: Mapping[BodyForm, bytes], *, now: float
) -> Asking[list[DkimResult]]:
    """What became of each of `found`, in their order. `header` as `signatures` had it; `now`: seconds since the epoch.

    Keys are asked for only where the body is the one that was signed: a changed body needs no key to be known for one.
    """
    fields = HeaderFields(header)
    keys: dict[str, list[KeyRecord] | DkimResult] = {}
    results = []
    for signature in found:
        result = before_the_key(signature, fields, body_hashes, now)
        if result is None:
            name = f"{signature.selector}._domainkey.{signature.domain}"
            records = keys.get(name)
            if records is None:
                records = keys[name] = yield from ask_keys(name, signature)
            if isinstance(records, DkimResult):
                result = _result(signature, records.result, records.problem)
            else:
                result = with_keys(signature, signed_octets(signature, fields), records)
        results.append(result)
    return results


def _result(signature: Signature, result: Outcome, problem: str = "", key: KeyRecord | None = None) -> DkimResult:
    return DkimResult(
        result,
        signature.domain,
        signature.selector,
        signature.identity,
        signature.algorithm,
        key.bits if key else 0,
        problem,
        testing=key.testing if key else False,
        mark=signature.mark,
    )


def before_the_key(
    signature: Signature, fields: HeaderFields, body_hashes: Mapping[BodyForm, bytes], now: float
) -> DkimResult | None:
    """What can be said without the key; None where that is nothing against the signature."""
    if signature.problem:
        return _result(signature, signature.result, signature.problem)
    if not fields.named(b"from"):
        return _result(signature, "policy", "there is no From")  # RFC 6376 §6.1.1: nobody is vouched for
    if len(fields.named(b"from")) > 1:
        # RFC 6376 §8.15: the signature may be over one and the reader's program show the other.
        return _result(signature, "policy", "there is more than one From, and a signature vouches for one")
    if signature.expires is not None and signature.expires < now:
        return _result(signature, "fail", "the signature has expired")  # RFC 6376 §6.1.1
    if signature.signed_at is not None and signature.signed_at > now + CLOCK_TOLERANCE:
        return _result(signature, "fail", "the signature is of the future")
    if signature.body is None or not (digest := body_hashes.get(signature.body)):
        return _result(signature, "permerror", "the signature covers more body than there is (l=)")
    if digest != signature.body_hash:
        return _result(signature, "fail", "the body was changed after it was signed")
    return None


def ask_keys(name: str, signature: Signature) -> Asking[list[KeyRecord] | DkimResult]:
    """The key records at `name`, or what their absence makes of the signature (RFC 6376 §6.1.2)."""
    if len(name) > MOST_CHARACTERS:
        return _result(signature, "permerror", "there is no key at the signature's selector")
    try:
        answer = yield Question(name, "TXT")
    except (NoSuchName, NoAnswer):
        return _result(signature, "permerror", "there is no key at the signature's selector")
    except DnsError:
        return _result(signature, "temperror", "DNS gave no answer about the signature's key")
    records = [record for text in answer[:MOST_KEYS] if (record := key_record(bytes(text))) is not None]
    return records or _result(signature, "permerror", "there is no key at the signature's selector")


def with_keys(signature: Signature, data: bytes, records: Sequence[KeyRecord]) -> DkimResult:
    """The best that one of the records makes of it; usually there is one. `data`: `signed_octets`."""
    worst: DkimResult | None = None
    for record in records:
        result = _with_key(signature, record, data)
        if result.result == "pass":
            return result
        worst = worst or result
    assert worst is not None
    return worst


def signed_octets(signature: Signature, fields: HeaderFields) -> bytes:
    """RFC 6376 §3.7 step 2: the fields of h=, then the signature's own without its b= and without its last CRLF."""
    covered = fields.selected(signature.names, signature.header_form, but=signature.index)
    name, colon, value = fields.fields[signature.index].partition(b":")
    bare = without_tag(value.removesuffix(b"\r\n"), b"b")
    if signature.header_form == "simple":
        return covered + name + colon + bare
    return covered + name.rstrip(b" \t").lower() + b":" + relaxed_value(unfolded(bare)).removesuffix(b"\r\n")


def _with_key(signature: Signature, key: KeyRecord, data: bytes) -> DkimResult:
    """RFC 6376 §6.1.2 and §6.1.3."""
    if key.problem:
        return _result(signature, "policy" if key.too_weak else "permerror", key.problem, key)
    kind, _, digest = signature.algorithm.partition("-")
    if key.kind != kind:
        return _result(signature, "permerror", f"the key is for {key.kind}, the signature is made with {kind}", key)
    if key.hashes is not None and digest.encode("ascii") not in key.hashes:
        return _result(signature, "permerror", f"the key may not be used with {digest} (h=)", key)
    if key.strict and signature.identity.rpartition("@")[2] != signature.domain:
        # RFC 6376 §3.6.1 t=s
        return _result(signature, "permerror", "the signature's i= is below its d=, which the key forbids (t=s)", key)
    if not key.verifies(signature.value, data):
        # RFC 6376 §3.6.1 t=y: a domain that tries DKIM out is not to be held to what fails. What passes counts, as it
        # does with everybody: keys stay in testing for years.
        outcome: Outcome = "neutral" if key.testing else "fail"
        return _result(signature, outcome, "the header was changed after it was signed, or the key is another", key)
    if signature.body is not None and signature.body.length is not None:
        # RFC 6376 §8.2: anybody may have added text below. It passes, but vouches for nothing.
        problem = "the signature covers only the beginning of the body (l=)"
        return _result(signature, "pass", problem, key)
    return replace(_result(signature, "pass", key=key), counts_for_alignment=True)
