"""Who gave a message to a relay, by the relay's own Received field. For relays that the owner trusts, and no others.

A relay that says neither XCLIENT nor XFORWARD still writes down which address it saw. Only what the relay itself
observed counts: the address of the TCP connection, which each mail server writes at a place of its own, and never what
the client called itself, though that may look like an address. Where a field does not have one of the forms below, or
could be read in two ways, nothing is known, and the caller judges nothing (no SPF result is better than a false one).

    Postfix, Sendmail, OpenSMTPD, Stalwart, Mailstead    from HELO (NAME [ADDRESS]) by ...
    Exim                      from NAME ([ADDRESS] helo=HELO) by ...      from [ADDRESS] (helo=HELO) by ...
    Exchange                  from HELO (ADDRESS) by ...
    qmail, Courier            from NAME (HELO HELO) (ADDRESS) by ...

The relay's own later hops (a content filter on 127.0.0.1, a second instance) stand above the one that is asked for:
fields whose client is the machine itself, or another relay of the owner's, are walked past.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from services.message.headers import find_all
from services.protocol.smtp_true_client import Client, plain_address

# One content filter makes one hop, two one more; what has more is a chain that nobody built for one message.
MAX_OWN_HOPS = 10
MAX_FIELD = 4096  # octets of a field that are read

_WORD = re.compile(r"[^\s()]+")
_BRACKETED = r"\[(?P<address>[0-9A-Za-z:.]{3,64})\](?::\d{1,5})?"
# NAME is one word without brackets: a PTR record is its owner's to write, and may hold an address of his choice.
_SEEN = re.compile(
    rf"(?:(?P<name>[^\s\[\]()]+) )?{_BRACKETED}(?P<more>(?: \(may be forged\)| (?:helo|ident|port)=\S+)*)\Z"
)
_BARE = re.compile(r"(?:[^\s@()\[\]]*@)?(?P<address>[0-9A-Fa-f:.]{3,45})\Z")
_HELO_PART = re.compile(r"(?:^| )helo=(\S+)")
_LITERAL = re.compile(rf"{_BRACKETED}\Z")
_EXIM_REST = re.compile(r"(?:(?:helo|ident|port)=\S+)(?: (?:helo|ident|port)=\S+)*\Z")
_BY = re.compile(r"by[ \t]+([^\s();]+)", re.IGNORECASE)
_INVOKED = re.compile(r"\(qmail \d+ invoked from network\)")


@dataclass(frozen=True, slots=True)
class Origin:
    """`client` is None where it cannot be known, and `problem` says why in a sentence."""

    client: Client | None
    problem: str = ""


def origin(header: bytes, is_ours: Callable[[str], bool], relay: str = "") -> Origin:
    """Whom the relay that sent this `header` (as it came, without a line of ours) had the message from.

    `is_ours` tells of an address whether it is one of the owner's relays; loopback always is. `relay` is what the relay
    called itself in EHLO: the topmost field must be of that host ("" where that is not to be asked), since a relay
    that writes no field of its own, as some are set up to, would let the message name its client itself.
    """
    own = 0
    for field in find_all(header, b"Received"):
        value = field.value[:MAX_FIELD].decode("utf-8", "replace")
        if _INVOKED.match(value):
            continue  # qmail writes two fields for a message; the other one has the address
        if own == 0 and relay and _by(value).lower().rstrip(".") != relay.lower().rstrip("."):
            return Origin(None, f"the topmost Received is not of {relay}, who sent the message")
        client = seen_by(value)
        if client is None:
            return Origin(None, "the relay's Received field does not say whom it had the message from")
        if not (_loopback(client.address) or is_ours(client.address)):
            return Origin(client)
        own += 1
        if own > MAX_OWN_HOPS:
            return Origin(None, f"more than {MAX_OWN_HOPS} Received fields of the owner's own relays")
    return Origin(None, "no Received field of the relay says whom it had the message from")


def seen_by(received: str) -> Client | None:
    """The client that the writer of an unfolded Received value observed; None where that cannot be told."""
    clause = _from_clause(received)
    if clause is None:
        return None
    word, comments, _ = clause
    readings = list(_readings(word, comments))
    # Two comments that look like an observation: one of them is the client's own words.
    return readings[0] if len(readings) == 1 else None


def _readings(word: str, comments: list[str]) -> Iterator[Client]:
    literal = _LITERAL.match(word)
    if literal and (not comments or _EXIM_REST.match(comments[0])) and (address := plain_address(literal["address"])):
        # Exim without a name: the address is the first word, and what the client said stands behind helo=.
        yield Client(address, _helo(comments[0] if comments else ""), "", "received")
        comments = comments[1:]
    greeted = ""
    for comment in comments:
        if comment.startswith("HELO ") and not greeted:
            greeted = comment[5:].strip()
            continue
        match = _SEEN.match(comment) or _BARE.match(comment)
        address = plain_address(match["address"]) if match else ""
        if match is None or not address:
            continue
        parts = match.groupdict()
        name, said = parts.get("name") or "", _helo(parts.get("more") or "")
        if greeted:  # qmail and Courier: the first word is the name by DNS
            yield Client(address, greeted, _known(word), "received")
        elif said:  # Exim with a name by DNS
            yield Client(address, said, _known(name or word), "received")
        else:
            yield Client(address, word, _known(name), "received")


def _helo(text: str) -> str:
    match = _HELO_PART.search(text)
    return match[1] if match else ""


def _known(name: str) -> str:
    return "" if name.lower() == "unknown" else name


def _loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def _from_clause(received: str) -> tuple[str, list[str], int] | None:
    """The word after `from`, the comments behind it, and where they end; None where the value does not begin so."""
    if received[:5].lower() != "from ":
        return None
    word = _WORD.match(received, 5)
    if word is None:
        return None
    comments: list[str] = []
    position = word.end()
    while True:
        while position < len(received) and received[position] in " \t":
            position += 1
        if received[position : position + 1] != "(":
            return word[0], comments, position
        end = _comment_end(received, position)
        if end < 0:
            return None
        comments.append(" ".join(received[position + 1 : end - 1].split()))
        position = end


def _comment_end(text: str, start: int) -> int:
    """Behind the comment that opens at `start`; -1 where it is not closed. RFC 5322 §3.2.2: comments nest."""
    depth, position = 0, start
    while position < len(text):
        letter = text[position]
        if letter == "\\":
            position += 1
        elif letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return -1


def _by(received: str) -> str:
    """The host that wrote the field; "" where it does not say."""
    clause = _from_clause(received)
    match = _BY.match(received, clause[2] if clause else 0)
    return match[1] if match else ""
