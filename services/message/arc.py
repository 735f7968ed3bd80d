"""Validates the Authenticated Received Chain of a message (RFC 8617 §5.2).

A list or forwarder that changes a message breaks its signatures. With ARC it writes down what it had found before
(ARC-Authentication-Results), signs the message as it goes on (ARC-Message-Signature), and seals all sets there are
(ARC-Seal). A chain says who handled the message and in which order; whether their word is worth anything is the
owner's to say (`policy/arc.py`). We seal nothing: the IETF retires ARC.

    chain = read_chain(header)
    hashes = hash_body(chunks, chain.wanted_bodies())          # together with those of the DKIM signatures
    result = yield from validate(chain, header, hashes, now=now)

Called by smtp-in. Bounded: 50 sets (§4.2.1), the newest `MOST_MESSAGE_SIGNATURES` of their message signatures; each key
is asked for once. Nothing here raises for what is in a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from services.message.authentication_results import AuthenticationResults, parse
from services.message.body_hash import BodyForm
from services.message.canonical import HeaderFields
from services.message.dkim_record import KeyRecord
from services.message.dkim_verify import (
    DkimResult,
    Signature,
    ask_keys,
    before_the_key,
    read_signature,
    signed_octets,
    with_keys,
)
from services.message.tag_list import BadTagList, tag_list, unfolded
from services.protocol.dns_lookup import Asking

__all__ = ["ArcResult", "Chain", "Sealed", "read_chain", "validate"]

MOST_SETS = 50  # RFC 8617 §4.2.1: "The maximum number of ARC Sets"
# Only where the body was changed is told by the older ones (§5.2 step 4, which is optional); each costs a look-up.
MOST_MESSAGE_SIGNATURES = 10

_AAR, _AMS, _SEAL = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
# RFC 8617 §4.2.1: one or two digits.
_INSTANCE = re.compile(rb"[0-9]{1,2}\Z")
_AAR_INSTANCE = re.compile(rb"\s*i[ \t]*=[ \t]*([0-9]{1,2})[ \t]*;", re.I)


@dataclass(frozen=True, slots=True)
class Sealed:
    """One ARC set. `results`: what its sealer says to have found; None where that cannot be read."""

    instance: int
    results: AuthenticationResults | None
    message_signature: Signature
    seal: Signature
    cv: str
    indexes: tuple[int, int, int]  # of the three fields in the header, as a seal covers them


@dataclass(frozen=True, slots=True)
class Chain:
    """The sets from the first to the newest; with a `problem` they are none that could be valid."""

    sets: tuple[Sealed, ...] = ()
    problem: str = ""

    def wanted_bodies(self) -> set[BodyForm]:
        """In which forms the body is to be hashed."""
        newest = [each.message_signature for each in self.sets[-MOST_MESSAGE_SIGNATURES:]]
        return {signature.body for signature in newest if signature.body is not None and not signature.problem}


@dataclass(frozen=True, slots=True)
class ArcResult:
    """RFC 8617 §4.4: none, pass or fail. A fail for want of an answer from DNS is `temporary`.

    `sealers`: d= of each seal, the first sealer first. `oldest_pass`: since which set the message is unchanged, 0 from
    the first on (§5.2 step 4). `problem` is a sentence for the owner.
    """

    result: Literal["none", "pass", "fail"]
    sealers: tuple[str, ...] = ()
    sets: tuple[Sealed, ...] = ()
    oldest_pass: int = 0
    problem: str = ""
    temporary: bool = False


def read_chain(header: bytes) -> Chain:
    """The ARC sets of `header` (CRLF lines). RFC 8617 §5.2 steps 1 and 2."""
    fields = HeaderFields(header)
    found: dict[int, dict[bytes, int]] = {}
    for name in (_AAR, _AMS, _SEAL):
        for index in fields.named(name):
            instance = _instance(name, fields.value(index))
            if not 1 <= instance <= MOST_SETS:
                return Chain(problem="an ARC field has no number of a set")
            if name in found.setdefault(instance, {}):
                return Chain(problem=f"the ARC set {instance} has a field twice")
            found[instance][name] = index
    sets = []
    for instance in range(1, len(found) + 1):
        places = found.get(instance)
        if places is None:
            return Chain(problem=f"the ARC set {instance} is missing")
        if len(places) != 3:
            return Chain(problem=f"the ARC set {instance} has not all of its fields")
        one = _set(instance, fields, places)
        # §5.2 step 2: the first has nothing to validate, each other must say that it had found a valid chain.
        if one.cv != ("none" if instance == 1 else "pass"):
            return Chain(problem=f"the ARC set {instance} says that the chain was not valid there")
        sets.append(one)
    return Chain(tuple(sets))


def _instance(name: bytes, value: bytes) -> int:
    if name == _AAR:
        match = _AAR_INSTANCE.match(unfolded(value))
        return int(match[1]) if match else 0
    try:
        text = tag_list(value.removesuffix(b"\r\n")).get("i", b"")
    except BadTagList:
        return 0
    return int(text) if _INSTANCE.match(text) else 0


def _set(instance: int, fields: HeaderFields, places: Mapping[bytes, int]) -> Sealed:
    results = parse(unfolded(fields.value(places[_AAR])).partition(b";")[2])
    message_signature = read_signature(fields.value(places[_AMS]), places[_AMS], "message")
    value = fields.value(places[_SEAL])
    seal = read_signature(value, places[_SEAL], "seal")
    cv = tag_list(value.removesuffix(b"\r\n")).get("cv", b"").lower()  # it was a tag-list when its i= was read
    indexes = (places[_AAR], places[_AMS], places[_SEAL])
    return Sealed(instance, results, message_signature, seal, cv.decode("ascii", "replace"), indexes)


def validate(chain: Chain, header: bytes, body_hashes: Mapping[BodyForm, bytes], *, now: float) -> Asking[ArcResult]:
    """Whether the chain is whole (RFC 8617 §5.2 steps 3 to 6). `header` as `read_chain` had it."""
    if chain.problem:
        return ArcResult("fail", problem=chain.problem)
    if not chain.sets:
        return ArcResult("none")
    work = _Validation(chain, HeaderFields(header), body_hashes, now)
    newest = len(chain.sets)
    found = yield from work.message_signature(newest)
    if found.result != "pass":
        return work.failed(f"the ARC message signature {newest} does not hold: {found.problem}", found)
    for instance in range(newest, 0, -1):
        found = yield from work.seal(instance)
        if found.result != "pass":
            return work.failed(f"the ARC seal {instance} does not hold: {found.problem}", found)
    # Step 4, which is optional, comes last: a chain that is broken needs no look-ups for it.
    unchanged_since = newest
    for instance in range(newest - 1, max(newest - MOST_MESSAGE_SIGNATURES, 0), -1):
        found = yield from work.message_signature(instance)
        if found.result != "pass":
            break
        unchanged_since = instance
    return ArcResult("pass", work.sealers, chain.sets, 0 if unchanged_since == 1 else unchanged_since)


class _Validation:
    """What is known while one chain is validated."""

    def __init__(self, chain: Chain, fields: HeaderFields, body_hashes: Mapping[BodyForm, bytes], now: float) -> None:
        self._sets = chain.sets
        self._fields = fields
        self._body_hashes = body_hashes
        self._now = now
        self._keys: dict[str, list[KeyRecord] | DkimResult] = {}
        self.sealers = tuple(each.seal.domain for each in chain.sets)

    def failed(self, problem: str, found: DkimResult) -> ArcResult:
        return ArcResult("fail", self.sealers, self._sets, 0, problem, found.result == "temperror")

    def message_signature(self, instance: int) -> Asking[DkimResult]:
        """RFC 8617 §4.1.2: as a DKIM signature."""
        signature = self._sets[instance - 1].message_signature
        refused = before_the_key(signature, self._fields, self._body_hashes, self._now)
        if refused is not None:
            return refused
        return (yield from self._verified(signature, signed_octets(signature, self._fields)))

    def seal(self, instance: int) -> Asking[DkimResult]:
        """RFC 8617 §5.1.1: over the fields of all sets up to its own, in relaxed form, its own with an empty b=."""
        signature = self._sets[instance - 1].seal
        if signature.problem:
            return DkimResult(signature.result, signature.domain, signature.selector, problem=signature.problem)
        places = [index for each in self._sets[:instance] for index in each.indexes][:-1]
        before = b"".join(map(self._fields.relaxed, places))
        return (yield from self._verified(signature, before + signed_octets(signature, self._fields)))

    def _verified(self, signature: Signature, octets: bytes) -> Asking[DkimResult]:
        name = f"{signature.selector}._domainkey.{signature.domain}"
        records = self._keys.get(name)
        if records is None:
            records = self._keys[name] = yield from ask_keys(name, signature)
        if isinstance(records, DkimResult):
            return records
        found = with_keys(signature, octets, records)
        if found.result == "pass" and signature.body is not None and signature.body.length is not None:
            # RFC 6376 §8.2: a list's footer is what ARC is for; text that nobody answers for is not.
            return DkimResult("policy", found.domain, found.selector, problem=found.problem)
        return found
