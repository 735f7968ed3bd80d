"""DMARC (RFC 9989): did the domain in From vouch for this message, and what does it ask for where it did not?

What is looked at, in this order:

1. The policy record of the author's domain: its own, else that of its organizational domain, else that of the public
   suffix above it (§4.10.1). They are found by walking up the tree of names, with at most 8 questions (§4.10). No
   record: none, DMARC says nothing of the message.
2. The authenticated identifiers: the domain for which SPF passed, and d= of each DKIM signature that passed and covers
   the whole body. One that is the author's domain (strict), or has its organizational domain (relaxed), is aligned, and
   the message passes (§4.10.2).
3. Else it fails, and the policy is the record's p=; for a name below the record's sp=, for one that does not exist np=
   (§4.7). With t=y it is one step milder.

DNS without an answer is temperror: neither passed nor failed (§5.3.6).

Pure; never raises. `policy` is what the domain asks for, not what is done: that is `policy/verdict.py`'s and the
owner's (§5.4: nobody should refuse for a policy alone).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from services.message.dkim_verify import DkimResult
from services.message.from_domain import Authors
from services.policy.dmarc_record import Policy, PolicyRecord, policy_record
from services.policy.spf import SpfResult
from services.protocol.dns_lookup import Asking, DnsError, NoAnswer, NoSuchName, Question

__all__ = ["DmarcResult", "check", "check_authors"]

Outcome = Literal["pass", "fail", "none", "temperror", "permerror"]

MOST_QUERIES = 8  # RFC 9989 §4.10: of one walk, however many labels a name has
MOST_CHARACTERS = 253  # of a name that DNS can hold (RFC 1035 §2.3.4: 255 octets as they are sent)
# RFC 9989 §11.5: of a From with several domains each is looked at, up to a limit.
MOST_AUTHORS = 3

_MILDER: dict[Policy, Policy] = {"reject": "quarantine", "quarantine": "none", "none": "none"}
_SEVERITY: dict[Policy, int] = {"none": 0, "quarantine": 1, "reject": 2}


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """What was found, in the words of RFC 8601 §2.7.6 (RFC 9989 §9.1).

    `policy` is what applies to this message if it fails, t=y counted; `published` what the record says, without t=y.
    `policy_domain` is where `record` (its text) stands. `aligned_by`: "spf" or "dkim", and `aligned_domain` the
    identifier; "" where nothing is aligned. `problem` is a sentence for the owner.
    """

    result: Outcome
    policy: Policy = "none"
    from_domain: str = ""
    organizational_domain: str = ""
    record: str = ""
    aligned_by: str = ""
    testing: bool = False
    problem: str = ""
    published: Policy = "none"
    policy_domain: str = ""
    aligned_domain: str = ""


class _NoAnswer(Exception):
    """DNS did not answer."""


class _Tree:
    """The records of the names that were asked for in one check; each is asked for once."""

    def __init__(self) -> None:
        self._records: dict[str, PolicyRecord | None] = {}
        self.exists: set[str] = set()  # names below which something is, so they are there too (RFC 8020 §2)

    def record(self, domain: str) -> Asking[PolicyRecord | None]:
        """The policy record of `domain` itself. Raises _NoAnswer."""
        name = f"_dmarc.{domain}"
        if len(name) > MOST_CHARACTERS:
            return None
        if domain not in self._records:
            try:
                answer = yield Question(name, "TXT")
            except NoSuchName:
                answer = ()
            except NoAnswer:
                answer = ()
                self.exists.add(domain)
            except DnsError as error:
                raise _NoAnswer from error
            else:
                self.exists.add(domain)
            self._records[domain] = policy_record(answer)
        return self._records[domain]

    def walk(self, domain: str) -> Asking[list[tuple[str, PolicyRecord]]]:
        """RFC 9989 §4.10: the records from `domain` upwards, the longest name first, to one that says what it is."""
        found: list[tuple[str, PolicyRecord]] = []
        for name in _names(domain):
            record = yield from self.record(name)
            if record is not None:
                found.append((name, record))
                if record.psd != "u":
                    break
        return found

    def organizational_domain(self, domain: str) -> Asking[str]:
        """RFC 9989 §4.10.2."""
        found = yield from self.walk(domain)
        if not found:
            return domain
        # Only the last can have a psd= that counts: the walk ends there.
        name, record = found[-1]
        if record.psd == "y" and name != domain:
            return _below(name, domain)
        return name


def _names(domain: str) -> Iterator[str]:
    """The names of a walk: the domain, then its parents, of which none has more than 7 labels."""
    yield domain
    labels = domain.split(".")
    for count in range(min(len(labels), MOST_QUERIES) - 1, 0, -1):
        yield ".".join(labels[-count:])


def _below(parent: str, domain: str) -> str:
    """The domain one label below `parent` on the way to `domain`."""
    return ".".join(domain.split(".")[-(parent.count(".") + 2) :])


def _is_below(domain: str, parent: str) -> bool:
    return domain.endswith("." + parent)


def check(from_domain: str, spf: SpfResult, dkim: Sequence[DkimResult]) -> Asking[DmarcResult]:
    """DMARC for one author's domain (A-labels). `spf` is that of MAIL, or of HELO where the sender is the null sender
    (RFC 9989 §3.2.4, RFC 7208 §2.4); `dkim` all of `dkim_verify`'s results. Never raises."""
    domain = from_domain.lower().removesuffix(".")
    tree = _Tree()
    try:
        result = yield from _check(tree, domain, spf, dkim)
    except _NoAnswer:
        return DmarcResult("temperror", from_domain=domain, problem="DNS gave no answer about the policy of From")
    return result


def _check(tree: _Tree, domain: str, spf: SpfResult, dkim: Sequence[DkimResult]) -> Asking[DmarcResult]:
    found = yield from _policy(tree, domain)
    if found is None:
        return DmarcResult("none", from_domain=domain, organizational_domain=domain)
    place, record = found
    about = DmarcResult(
        "none", from_domain=domain, record=record.text, policy_domain=place, testing=record.testing
    )  # fmt: skip
    if record.problem:
        return replace(about, organizational_domain=domain, problem=record.problem)
    how, identifier, organization = yield from _alignment(tree, domain, place, record, spf, dkim)
    about = replace(about, organizational_domain=organization)
    if how:
        published = yield from _published(tree, domain, place, record, ask=False)
        policy = _MILDER[published] if record.testing else published
        return replace(
            about, result="pass", policy=policy, published=published, aligned_by=how, aligned_domain=identifier
        )
    published = yield from _published(tree, domain, place, record, ask=True)
    # RFC 9989 §4.7 t=: "one level below the specified policy".
    policy = _MILDER[published] if record.testing else published
    return replace(about, result="fail", policy=policy, published=published)


def _policy(tree: _Tree, domain: str) -> Asking[tuple[str, PolicyRecord] | None]:
    """RFC 9989 §4.10.1: the record that applies and where it stands."""
    own = yield from tree.record(domain)
    if own is not None:
        return domain, own
    found = dict((yield from tree.walk(domain)))
    if not found:
        return None
    organization = yield from tree.organizational_domain(domain)
    if organization in found:
        return organization, found[organization]
    # The public suffix's: nothing else ends a walk above the organizational domain.
    last = list(found)[-1]
    return (last, found[last]) if found[last].psd == "y" else None


def _alignment(
    tree: _Tree, domain: str, place: str, record: PolicyRecord, spf: SpfResult, dkim: Sequence[DkimResult]
) -> Asking[tuple[str, str, str]]:
    """RFC 9989 §4.10.2: ("spf" | "dkim" | "", the identifier, the author's organizational domain).

    Where that need not be known it is not asked for: most signatures are by the author's domain itself. The domain of
    the policy record (`place`) stands for it then, and never a public suffix for the names below it.
    """
    identifiers = [("spf", spf.domain.lower().removesuffix("."), record.strict_spf)] if spf.result == "pass" else []
    # RFC 6376 §8.2: a signature over a part of the body vouches for no message.
    passed = dict.fromkeys(each.domain.lower() for each in dkim if each.result == "pass" and each.counts_for_alignment)
    identifiers += [("dkim", signer, record.strict_dkim) for signer in passed]
    known = _below(place, domain) if record.psd == "y" and place != domain else place
    for how, identifier, _ in identifiers:
        if identifier == domain:
            return how, identifier, known
    if all(strict for _, _, strict in identifiers):
        return "", "", known
    organization = yield from tree.organizational_domain(domain)
    unknown: _NoAnswer | None = None
    for how, identifier, strict in identifiers:
        # An organizational domain is the name itself or one above it: what is neither the author's nor below it has
        # another, without asking. So a stranger's signatures cost no look-ups.
        if strict or (identifier != organization and not _is_below(identifier, organization)):
            continue
        try:
            other = yield from tree.organizational_domain(identifier)
        except _NoAnswer as error:
            unknown = error
            continue
        if other == organization:
            return how, identifier, organization
    if unknown is not None:
        raise unknown
    return "", "", organization


def _published(tree: _Tree, domain: str, place: str, record: PolicyRecord, *, ask: bool) -> Asking[Policy]:
    """RFC 9989 §4.7 p, sp, np: the one that is meant for `domain`. `ask`: whether it matters enough for a question."""
    if place == domain:
        return record.p
    below = record.sp or record.p
    if record.np is None or record.np == below or domain in tree.exists or not ask:
        return below
    # RFC 9989 §3.2.13: NXDOMAIN, for whatever type, is a domain that does not exist.
    try:
        yield Question(domain, "A")
    except NoSuchName:
        return record.np
    except NoAnswer:
        return below
    except DnsError as error:
        raise _NoAnswer from error
    return below


def check_authors(authors: Authors, spf: SpfResult, dkim: Sequence[DkimResult]) -> Asking[DmarcResult]:
    """DMARC for what From says (`message/from_domain.py`).

    A From that is not one domain, clearly, is outside of RFC 9989 (§5.3.1), and is how its check is avoided (§11.5):
    each of the domains is checked, and the strictest that does not pass counts. Such a message never passes.
    """
    if not authors.problem and len(authors.domains) == 1:
        return (yield from check(authors.domains[0], spf, dkim))
    worst: DmarcResult | None = None
    for domain in authors.domains[:MOST_AUTHORS]:
        result = yield from check(domain, spf, dkim)
        if result.result == "fail" and (worst is None or _SEVERITY[result.policy] > _SEVERITY[worst.policy]):
            worst = result
    if worst is not None:
        return replace(worst, problem=authors.problem)
    first = authors.domains[0] if authors.domains else ""
    return DmarcResult("permerror", from_domain=first, problem=authors.problem)
