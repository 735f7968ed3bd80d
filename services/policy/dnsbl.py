"""Lists of addresses in DNS (RFC 5782): which of the owner's lists name the peer, and what that weighs.

A list is asked for the address turned round, before the list's zone; an A record of 127.0.0.0/8 means "listed", and its
number for what. Off by default: DNSBL_LISTS names the lists and their weights. A list of good addresses has a negative
weight.

Three kinds of answers are no listing, and are said instead, since a list that broke must not send a family's mail to
Junk: 127.255.255.0/24 and a few numbers more, by which a list refuses to answer; anything outside 127.0.0.0/8, which a
resolver on the way or the list's next owner made up; and a list that names 127.0.0.1, so the whole world (RFC 5782 §5).

Pure. Called by the smtp-in room, which asks all lists at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from services.policy.verdict import Reason
from services.protocol.dns_lookup import Asking, DnsError, NoAnswer, NoSuchName, Question

MAX_LISTS = 20  # each is a question per connection
MAX_WEIGHT = 100.0
MAX_TEXT = 160  # characters of a list's own words: enough for its web address

_LISTED = IPv4Network("127.0.0.0/8")
_REFUSED = IPv4Network("127.255.255.0/24")
# By which lists refuse inside the range of listings: URIBL's and others' 127.0.0.1, DNSWL's 127.0.0.255.
_REFUSED_TOO = frozenset({IPv4Address("127.0.0.1"), IPv4Address("127.0.0.255")})
_KEYED = ".dq.spamhaus.net"

_NUMBER = r"127(?:\.[0-9]{1,3}){3}"
_LIST = (
    rf"(?:[A-Za-z0-9_-]{{1,63}}\.)+[A-Za-z0-9-]{{2,63}}=-?[0-9]{{1,3}}(?:\.[0-9]{{1,2}})?(?:@{_NUMBER}(?:-{_NUMBER})?)*"
)


@dataclass(frozen=True, slots=True)
class BlockList:
    """`name` is what the record calls it: its zone, without the owner's key. Only answers within one of `codes` (first
    and last number) count; () is all.
    """

    name: str
    zone: str
    weight: float
    codes: tuple[tuple[int, int], ...] = ()

    @property
    def rule(self) -> str:
        """The rule's name in verdicts."""
        return "dnsbl-" + self.name.replace(".", "-")


@dataclass(frozen=True, slots=True)
class DnsblResult:
    """`answers` as they came. `reasons` has one where the address is listed. `error` is a sentence for the owner where
    the list cannot be relied on; then there is no reason.
    """

    list: BlockList
    answers: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    error: str = ""


def block_lists(setting: str) -> tuple[BlockList, ...]:
    """Read DNSBL_LISTS: `zone=weight`, with any `@127.0.0.2` or `@127.0.0.2-127.0.0.11` behind, separated by commas.

    Raises ValueError with a sentence for the owner.
    """
    found = tuple(_block_list(entry.strip()) for entry in setting.split(",") if entry.strip())
    if len(found) > MAX_LISTS:
        raise ValueError(f"more than {MAX_LISTS} lists are asked of for each connection")
    return found


def _block_list(entry: str) -> BlockList:
    if not re.fullmatch(_LIST, entry):
        raise ValueError(
            f"{entry[:80]} is not a list such as zen.spamhaus.org=6 or list.example=2@127.0.0.2-127.0.0.11"
        )
    zone, _, rest = entry.lower().partition("=")
    weight, *ranges = rest.split("@")
    if abs(float(weight)) > MAX_WEIGHT:
        raise ValueError(f"{weight} is more than {MAX_WEIGHT:g}")
    codes = []
    for each in ranges:
        first, _, last = each.partition("-")
        low, high = int(IPv4Address(first)), int(IPv4Address(last or first))
        if low > high:
            raise ValueError(f"{each} begins with its greater number")
        codes.append((low, high))
    # The first label of a keyed zone is the owner's secret, which shall not stand in the record.
    name = zone.partition(".")[2] if zone.endswith(_KEYED) else zone
    return BlockList(name, zone, float(weight), tuple(codes))


def listed(ip: str, lists: Sequence[BlockList]) -> list[Asking[DnsblResult]]:
    """One question after another for each list, to be asked at once. None for an address that no list can know."""
    address = _public(ip)
    return [] if address is None else [_asked(address, each) for each in lists]


def _public(ip: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    # Asking for an address of the house tells the list about the house, and lists answer oddly for them.
    return address if address.is_global and not address.is_multicast else None


def question_name(address: IPv4Address | IPv6Address, zone: str) -> str:
    """RFC 5782 §2.1 (octets) and §2.4 (nibbles), both turned round."""
    return f"{address.reverse_pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}"


def _asked(address: IPv4Address | IPv6Address, block_list: BlockList) -> Asking[DnsblResult]:
    name = question_name(address, block_list.zone)
    try:
        answers = tuple((yield Question(name, "A")))
    except (NoSuchName, NoAnswer):
        return DnsblResult(block_list)
    except DnsError as error:
        return DnsblResult(block_list, error=f"{block_list.name} does not answer: {error}")
    if wrong := next(_errors(answers, block_list), ""):
        return DnsblResult(block_list, answers, error=wrong)
    counted = [each for each in answers if _counts(each, block_list)]
    if not counted:
        return DnsblResult(block_list, answers)
    # RFC 5782 §5: a list that ended often answers for every address; one that names 127.0.0.1 is such a one.
    nobody = IPv4Address("127.0.0.1") if address.version == 4 else IPv6Address("::ffff:7f00:1")
    try:
        yield Question(question_name(nobody, block_list.zone), "A")
    except (NoSuchName, NoAnswer):
        pass
    except DnsError as error:
        return DnsblResult(block_list, answers, error=f"{block_list.name} does not answer: {error}")
    else:
        wrong = f"{block_list.name} lists every address: it has ended; take it out of DNSBL_LISTS"
        return DnsblResult(block_list, answers, error=wrong)
    name_of, codes = block_list.name, " ".join(counted)
    text = f"{address} is listed by {name_of} ({codes})"
    if block_list.weight < 0:
        text = f"{address} is recommended by {name_of} ({codes})"
    if words := (yield from _words(name)):
        text = f"{text}: {words}"
    return DnsblResult(block_list, answers, (Reason(block_list.rule, text, block_list.weight),))


def _errors(answers: Sequence[str], block_list: BlockList) -> Iterator[str]:
    """What is wrong with the answers, for the owner, and what to do about it."""
    name = block_list.name
    for each in answers:
        address = IPv4Address(each)
        if address not in _LISTED:
            yield (
                f"{name} answers {each}, as no list does: a resolver on the way makes answers up, or the list has "
                "ended; take it out of DNSBL_LISTS"
            )
        elif address in _REFUSED or address in _REFUSED_TOO:
            # The three numbers are Spamhaus's, which others took over.
            match each.rpartition(".")[2]:
                case "252":
                    yield f"{name} is no list that its owner knows ({each}): mend the name in DNSBL_LISTS"
                case "254":
                    yield (
                        f"{name} refuses questions that come through public resolvers ({each}): leave DNS_FORWARD_TO "
                        "empty, or get a key of your own from the list"
                    )
                case _:
                    yield (
                        f"{name} refuses to answer ({each}), mostly for too many questions: get a key of your own from "
                        "the list, or take it out of DNSBL_LISTS"
                    )


def _counts(answer: str, block_list: BlockList) -> bool:
    number = int(IPv4Address(answer))
    return not block_list.codes or any(first <= number <= last for first, last in block_list.codes)


def _words(name: str) -> Asking[str]:
    """The list's own words about the address (RFC 5782 §2.1): a stranger's text, printable ASCII."""
    try:
        answer = yield Question(name, "TXT")
    except DnsError:
        return ""
    text = answer[0][:MAX_TEXT].decode("ascii", "replace") if answer else ""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text).strip()
