"""Who connects: the name that DNS has for the address, and the name that the client says in HELO.

Servers that send mail have a name that leads back to their address, and say it; hijacked computers have neither. But a
home like ours has often no PTR record of its own, and RFC 5321 §4.1.4 forbids to refuse mail for the name in HELO. So
each finding is a reason with a weight, and all that an honest server can have at once stays below JUNK_SCORE. A
temporary failure of DNS decides nothing.

Pure. Called by the smtp-in room for strangers alone, never for a peer that the owner trusts.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from services.policy.spf_macro import is_name
from services.policy.verdict import Reason
from services.protocol.dns_lookup import Asking, DnsError, Kind, NoAnswer, NoSuchName, Question
from services.protocol.idn import a_labels

MAX_NAMES = (
    10  # of an address that are looked at, as RFC 7208 §4.6.4 has it: whoever owns an address can name thousands
)

# Of JUNK_SCORE, 5 by default. An honest home server without PTR whose name has no address has 3.
NO_PTR = 2.0  # large providers refuse such mail outright
PTR_MISMATCH = 1.0
HELO_BARE = 1.0
HELO_NO_ADDRESS = 1.0
HELO_LITERAL = 1.5
HELO_OURS = 3.0  # no stranger has our name by mistake

# What a computer says that nobody has named.
_NOBODYS = frozenset({"localhost", "localhost.localdomain", "localhost.local"})


@dataclass(frozen=True, slots=True)
class PeerName:
    """`names`: what PTR says, in lower case. `confirmed`: the one among them that leads back to the address, else "".

    `problem` is a sentence for the owner where there is none; with `temporary` it says that DNS was away.
    """

    names: tuple[str, ...] = ()
    confirmed: str = ""
    problem: str = ""
    temporary: bool = False

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """What it weighs."""
        if self.confirmed or self.temporary:
            return ()
        if not self.names:
            return (Reason("no-ptr", self.problem, NO_PTR),)
        return (Reason("ptr-mismatch", self.problem, PTR_MISMATCH),)


def forward_confirmed(ip: str) -> Asking[PeerName]:
    """The name of an address that is also an address of that name (RFC 8601 §3: iprev; RFC 1912 §2.1)."""
    address = _address(ip)
    if address is None:
        return PeerName(problem=f"{ip[:60]} is no address", temporary=True)
    try:
        answer = yield Question(str(address), "PTR")
    except (NoSuchName, NoAnswer):
        return PeerName(problem=f"{address} has no name in DNS (PTR)")
    except DnsError as error:
        return PeerName(problem=f"the name of {address} could not be asked for: {error}", temporary=True)
    names = tuple(name.lower().removesuffix(".") for name in answer[:MAX_NAMES])
    failure: DnsError | None = None
    for name in names:
        if not is_name(name):
            continue
        try:
            addresses = yield Question(name, _kind(address))
        except (NoSuchName, NoAnswer):
            continue
        except DnsError as error:
            failure = error
            continue
        if any(ip_address(each) == address for each in addresses):
            return PeerName(names, name)
    if failure is not None:
        return PeerName(names, problem=f"the name of {address} could not be asked for: {failure}", temporary=True)
    shown = names[0] if names and names[0].isprintable() else "..."
    return PeerName(names, problem=f"{address} is {shown} in DNS, a name that does not lead back to it")


def hello(helo: str, ip: str, ours: frozenset[str]) -> Asking[tuple[Reason, ...]]:
    """What is wrong with what the peer calls itself. `ours`: our host names, domains and addresses, in lower case."""
    address = _address(ip)
    name = helo.lower().removesuffix(".")
    shown = (helo if helo.isprintable() else ascii(helo))[:100]
    literal = _literal(name)
    if literal is not None:
        if literal == address and name.startswith("["):
            return ()  # RFC 5321 §4.1.3: right for a host without a name
        if str(literal) in ours and literal != address:
            return (Reason("helo-ours", f"it says {shown}, which is ours", HELO_OURS),)
        return (Reason("helo-literal", f"it says {shown}, which is not its address in brackets", HELO_LITERAL),)
    if name.startswith("["):
        return (Reason("helo-literal", f"it says {shown}, which is not its address in brackets", HELO_LITERAL),)
    try:
        name = a_labels(name)
    except ValueError:
        name = ""
    if name in ours and (address is None or str(address) not in ours):
        return (Reason("helo-ours", f"it says {shown}, which is ours", HELO_OURS),)
    if not is_name(name) or "." not in name or name in _NOBODYS:
        # RFC 5321 §4.1.1.1: the client's fully-qualified domain name.
        return (Reason("helo-bare", f"it says {shown}, which is no full name", HELO_BARE),)
    kinds: tuple[Kind, Kind] = ("AAAA", "A") if address is not None and address.version == 6 else ("A", "AAAA")
    for kind in kinds:
        try:
            if (yield Question(name, kind)):
                return ()
        except (NoSuchName, NoAnswer):
            continue
        except DnsError:
            return ()
    return (Reason("helo-no-address", f"it says {shown}, which has no address in DNS", HELO_NO_ADDRESS),)


def _address(ip: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _literal(name: str) -> IPv4Address | IPv6Address | None:
    """The address of `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3), or of the same without brackets."""
    inside = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    return _address(inside.removeprefix("ipv6:"))


def _kind(address: IPv4Address | IPv6Address) -> Kind:
    return "A" if address.version == 4 else "AAAA"
