"""What a message itself proves of its sender: DKIM, ARC and DMARC, looked at when it is whole.

Called by `judging` at the final dot. The body is hashed once, for every signature in it: a small one here, a large
one in a thread. What is asked of DNS goes through `evidence`, with its limits; the keys of DKIM and ARC at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterator

from services.message.arc import ArcResult, Chain, read_chain, validate
from services.message.dkim_verify import DkimResult, Signature, hash_body, signatures, verify, wanted_bodies
from services.message.from_domain import from_domains
from services.policy import arc as arc_policy
from services.policy.authenticity import Proofs
from services.policy.dmarc import DmarcResult, check_authors
from services.policy.spf import SpfResult
from services.runtime.dns import Recorded
from services.smtp_in.evidence import SECONDS, Inquirer, Inquiry
from services.storage.delivery import Incoming

# Hashing this much takes milliseconds, in which nobody else of the process would be served.
IN_A_THREAD = 65_536

UNKNOWN_CLIENT = SpfResult("none", "", "mfrom", problem="whom the mail comes from is not known, so SPF says nothing")

_FROM = re.compile(rb"(?im)^from[ \t]*:")
_SEALED = re.compile(rb"(?im)^arc-seal[ \t]*:")


async def prove(
    inquirer: Inquirer,
    inquiry: Inquiry | None,
    header: bytes,
    body: Incoming,
    sealers: Collection[str],
    asked: Recorded,
) -> Proofs:
    """What is proven, and what is not. `inquiry` None: whom it comes from is not known. `sealers`: whose ARC counts."""
    authors = from_domains(header)
    deadline = asyncio.get_running_loop().time() + SECONDS
    found = signatures(header)
    chain = read_chain(header) if _SEALED.search(header) else Chain()
    hashes = {}
    if forms := wanted_bodies(found) | chain.wanted_bodies():
        if body.in_file or body.size > IN_A_THREAD:
            hashes = await asyncio.to_thread(hash_body, _after_header(body, header), forms)
        else:
            hashes = hash_body(_after_header(body, header), forms)
    now = inquirer.clock()

    async def signed() -> list[DkimResult]:
        return await inquirer.settled(
            verify(found, header, hashes, now=now), asked, deadline, lambda why: _unknown(found, why), "DKIM"
        )

    async def sealed() -> ArcResult:
        return await inquirer.settled(
            validate(chain, header, hashes, now=now), asked, deadline,
            lambda why: ArcResult("fail", problem=why, temporary=True), "ARC",
        )  # fmt: skip

    arc: ArcResult | None = None
    if chain.sets or chain.problem:
        dkim, arc = await asyncio.gather(signed(), sealed())
    else:
        dkim = await signed() if found else []
    spf = await inquiry.spf() if inquiry is not None else UNKNOWN_CLIENT
    dmarc: DmarcResult | None = None
    vouched = ""
    if authors.domains:
        dmarc = await inquirer.settled(
            check_authors(authors, spf, dkim), asked, deadline,
            lambda why: DmarcResult("temperror", from_domain=authors.domains[0], problem=why), "DMARC",
        )  # fmt: skip
        if arc is not None and sealers and dmarc.result == "fail":
            vouched = arc_policy.vouched(arc, sealers, dmarc)
    two_froms = len(_FROM.findall(header)) > 1
    return Proofs(
        spf, dkim, dmarc, arc, two_froms, authors.problem, vouched, inquiry is not None, authors.displayed
    )  # fmt: skip


def _unknown(found: list[Signature], why: str) -> list[DkimResult]:
    return [DkimResult("temperror", each.domain, each.selector, problem=why) for each in found]


def _after_header(body: Incoming, header: bytes) -> Iterator[bytes]:
    """The body without its header and the empty line behind it."""
    skip = len(header) + 2
    for chunk in body.chunks():
        if skip >= len(chunk):
            skip -= len(chunk)
        else:
            yield chunk[skip:] if skip else chunk
            skip = 0
