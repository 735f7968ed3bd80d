"""What each rule means in plain words, and what the owner of the server can do about it: a table, no code.

`explanation.py` puts an entry beside each reason of the record; the reason says what was found in this message, the
entry why that counts and what now. Keys are the rules' names as `policy/` and `smtp_in/` give them to `Reason`; one
that ends in a star is for all that begin so. `where` names what the owner goes to: a variable (its env file is added
from `runtime/values.py`), a command, a page of the guides; it is the same in every language.

A test takes every rule's name from the sources and fails where one has no entry here.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.admin.text import mark


@dataclass(frozen=True, slots=True)
class Advice:
    """`cause` and `todo` are messages of the catalogue; `todo` is "" where nothing is to be done."""

    cause: str
    todo: str = ""
    where: tuple[str, ...] = ()


_NOTHING = Advice(mark("The sentence beside it is all that is known here of this rule."))

RULES: dict[str, Advice] = {
    # --- SPF
    "spf-pass": Advice(mark("The sender's domain says that this server may send for it.")),
    "spf-fail": Advice(
        mark("The sender's domain says that this server may not send for it: forged, forwarded, or their mistake."),
        mark(
            "If you know them: they add that server to their SPF record. If it is a server of yours that hands mail on "
            "to here, name it as a trusted forwarder."
        ),
        ("SPF_FAIL", "TRUSTED_FORWARDERS", "docs/junk.md"),
    ),
    "spf-softfail": Advice(
        mark("The sender's domain says that this server probably may not send for it."),
        mark("Only a hint, it counts a little. The sender's administrator completes their SPF record."),
        ("docs/junk.md",),
    ),
    "spf-neutral": Advice(
        mark("The sender's domain says neither that this server may send for it nor that it may not.")
    ),
    "spf-none": Advice(mark("SPF says nothing: the domain has no record, or the client is not known.")),
    "spf-temperror": Advice(
        mark("The sender's domain could not be looked up now."),
        mark("It comes right by itself. If all senders have it, look at this server's own DNS."),
        ("scripts/mailstead status", "docs/troubleshooting.md"),
    ),
    "spf-permerror": Advice(
        mark("The sender's SPF record has a mistake, so that nothing can be read from it."),
        mark("Only the sender's administrator can mend it: send them the sentence above."),
    ),
    # --- DKIM
    "dkim-pass": Advice(mark("A signature is right: what it covers arrived as it was signed.")),
    "dkim-fail": Advice(
        mark(
            "No signature is right: the message was changed on its way (a list, a scanner, a forwarder) or is forged."
        ),
        mark("If it is a list or a forwarder, they must leave messages as they are, or the From must be theirs."),
    ),
    "dkim-none": Advice(mark("The message carries no signature.")),
    "dkim-neutral": Advice(mark("A signature is there, but it cannot be read, so it says nothing.")),
    "dkim-policy": Advice(
        mark(
            "A signature is right but counts for nothing here: too weak a key, or it leaves parts of the message open."
        ),
        mark("The sender's administrator makes a key of at least 1024 bits and signs whole messages."),
    ),
    "dkim-temperror": Advice(
        mark("The key of a signature could not be looked up now."),
        mark("It comes right by itself. If all senders have it, look at this server's own DNS."),
        ("scripts/mailstead status",),
    ),
    "dkim-permerror": Advice(
        mark("A signature or its key in DNS has a mistake."),
        mark("Only the sender's administrator can mend it: send them the sentence above."),
    ),
    # --- DMARC
    "dmarc-pass": Advice(mark("The domain in the From has confirmed this message, by SPF or by its signature.")),
    "dmarc-fail-none": Advice(
        mark("The domain in the From has not confirmed this message, but asks that nothing be done about it.")
    ),
    "dmarc-fail-quarantine": Advice(
        mark("The domain in the From has not confirmed this message and asks that such mail be put into Junk."),
        mark(
            "If it is real, the sender has a mistake in SPF, DKIM or DMARC, or it came through a list or a forwarder. "
            "If a forwarder of yours seals with ARC, name it; else let such mail pass with a mark."
        ),
        ("DMARC_FAIL", "ARC_SEALERS", "docs/junk.md"),
    ),
    "dmarc-fail-reject": Advice(
        mark("The domain in the From has not confirmed this message and asks that such mail be refused."),
        mark(
            "If it is real, the sender has a mistake in SPF, DKIM or DMARC, or it came through a list or a forwarder. "
            "If a forwarder of yours seals with ARC, name it; else let such mail pass with a mark."
        ),
        ("DMARC_FAIL", "ARC_SEALERS", "docs/junk.md"),
    ),
    "dmarc-none": Advice(mark("The domain in the From does not say how to tell its mail from forged mail.")),
    "dmarc-temperror": Advice(
        mark("The policy of the domain in the From could not be looked up now."),
        mark("It comes right by itself. If all senders have it, look at this server's own DNS."),
        ("scripts/mailstead status",),
    ),
    "dmarc-permerror": Advice(
        mark("The policy of the domain in the From has a mistake, or the From names no domain that could have one."),
        mark("Only the sender's administrator can mend it: send them the sentence above."),
    ),
    "client-unknown": Advice(
        mark("Nobody says from which server it came, so it was put into Junk instead of being refused."),
        mark(
            "Let the relay in front of this server say whose mail it brings (XFORWARD), or let peers arrive directly."
        ),
    ),
    "dns-unanswered": Advice(
        mark(
            "DNS did not answer everything that was asked about it, so it was put into Junk instead of being refused."
        ),
        mark("It comes right by itself. If all senders have it, look at this server's own DNS."),
        ("scripts/mailstead status",),
    ),
    "from-unclear": Advice(
        mark("The message has no From, or several: clients show one of them, checks may have looked at another."),
        mark("Real mail programs do not write such messages. The sender must send it anew."),
    ),
    "from-shows-another": Advice(
        mark(
            "The name in the From is somebody's address, but not that of who sent it. Many programs show only the name."
        ),
        mark("Look at the address itself before you believe the name. A form on a web page may do this rightly."),
    ),
    "two-froms": Advice(
        mark("The message has no From, or several: clients show one of them, checks may have looked at another."),
        mark("Real mail programs do not write such messages. The sender must send it anew."),
    ),
    # --- ARC
    "arc-pass": Advice(mark("A forwarder that you trust says that the message was in order when it came there.")),
    "arc-fail": Advice(
        mark("The forwarders' seals on the message are broken, so they say nothing."),
        mark("Nothing by itself: it is then judged without them."),
    ),
    # --- who is connecting
    "no-ptr": Advice(
        mark("The server's address has no name in DNS (PTR), as home lines and hijacked machines have none."),
        mark("If you know them: whoever gives them their address sets its PTR record."),
        ("docs/junk.md",),
    ),
    "ptr-mismatch": Advice(
        mark("The name of the server's address does not lead back to that address, so it proves nothing."),
        mark("If you know them: their PTR record and the A record of that name must belong together."),
    ),
    "helo-bare": Advice(
        mark("The server introduced itself by a bare name, which no mail server on the internet has."),
        mark("If you know them: its own name (myhostname in Postfix) must be a full one with an address in DNS."),
    ),
    "helo-ours": Advice(
        mark("The server introduced itself by this server's own name or address, as only forgers do."),
        mark("If it is a server of yours, give it a name of its own, or name it as a trusted forwarder."),
        ("TRUSTED_FORWARDERS", "docs/vps-relay.md"),
    ),
    "helo-literal": Advice(
        mark("The server introduced itself by an address in brackets instead of a name."),
        mark("If you know them: its own name (myhostname in Postfix) must be a full one with an address in DNS."),
    ),
    "helo-no-address": Advice(
        mark("The name by which the server introduced itself has no address in DNS."),
        mark("If you know them: its own name (myhostname in Postfix) must be a full one with an address in DNS."),
    ),
    "helo-*": Advice(
        mark("How the server introduced itself is not how mail servers do."),
        mark("If you know them: its own name (myhostname in Postfix) must be a full one with an address in DNS."),
    ),
    "dnsbl-error": Advice(
        mark("A blocklist that you asked gave no answer that can be used, so it counts for nothing."),
        mark("The sentence says why. A list that has ended or refuses you is best taken out."),
        ("DNSBL_LISTS", "docs/junk.md"),
    ),
    "dnsbl-*": Advice(
        mark("The server's address or domain stands on a blocklist that you asked."),
        mark(
            "If you know them: they look their address up on that list's page and ask to be taken off. A list that is "
            "wrong too often gets less weight, or is not asked any more."
        ),
        ("DNSBL_LISTS", "docs/junk.md"),
    ),
    # --- waiting and limits
    "greylist": Advice(
        mark("It comes from a sender and a server that were not seen here before: real servers try again in minutes."),
        mark("Nothing: it comes by itself. Later mail from there is not delayed. It can be turned off."),
        ("GREYLIST", "docs/junk.md"),
    ),
    "rate-address": Advice(
        mark("The server sent more in a short time than one address may."),
        mark("It is tried again by itself. If a server of yours sends so much, name it, or raise the limit."),
        ("RATE_PER_ADDRESS", "TRUSTED_FORWARDERS"),
    ),
    "rate-network": Advice(
        mark("The network of the server sent more in a short time than one network may."),
        mark("It is tried again by itself. If it happens to real mail, raise the limit."),
        ("RATE_PER_NETWORK",),
    ),
    "rate-sender": Advice(
        mark("The sender sent more in a short time than one sender may."),
        mark("It is tried again by itself. If it happens to real mail, raise the limit."),
        ("RATE_PER_SENDER",),
    ),
    "held": Advice(
        mark("An update was under way, and mail waits outside meanwhile."),
        mark("Nothing: the sender's server tries again by itself."),
        ("scripts/mailstead update status",),
    ),
    "disk-reserve": Advice(
        mark("The disk is nearly full, so new mail waits at its sender."),
        mark("Make room, or add a disk. The mail comes by itself afterwards."),
        ("DISK_RESERVE_PERCENT", "DISK_RESERVE_BYTES", "docs/troubleshooting.md"),
    ),
    "no-directory": Advice(
        mark("The list of addresses was not there yet, as in the first seconds of a start."),
        mark("It comes by itself. If it stays so, look at whether the admin service runs."),
        ("scripts/mailstead status",),
    ),
    # --- whom it is for
    "not-local": Advice(
        mark("The address is in no domain of this server: somebody tried whether it hands mail on to others."),
        mark("If it is your own domain, add it. Your own programs log in on port 465 to send."),
        ("scripts/mailstead domain add", "docs/clients.md"),
    ),
    "unknown-recipient": Advice(
        mark("No account and no alias has this address."),
        mark("If somebody should get it, make an account, an alias, or a catch-all for the domain."),
        ("scripts/mailstead account add", "scripts/mailstead alias add"),
    ),
    "disabled": Advice(
        mark("The account is disabled and takes no mail."),
        mark("Enable it, if it shall have mail again."),
        ("scripts/mailstead account enable",),
    ),
    "disabled-target": Advice(
        mark("One of the accounts behind this address is disabled and gets no copy."),
        mark("Enable it, if it shall have mail again."),
        ("scripts/mailstead account enable",),
    ),
    "dead-target": Advice(
        mark("One of the addresses behind this alias does not exist (any more)."),
        mark("Take it out of the alias."),
        ("scripts/mailstead alias del",),
    ),
    "quota": Advice(
        mark("The mailbox is full."),
        mark("Delete mail in it, or let it keep more. What waits at its sender comes by itself."),
        ("scripts/mailstead account quota", "DEFAULT_QUOTA"),
    ),
    "forward-junk": Advice(
        mark(
            "A message that looks like junk is not sent on to addresses elsewhere: this server would be taken for its "
            "sender."
        ),
        mark(
            "If it is wrong, the forwarding's owner finds it in Junk, or its sender was told. More trust for that "
            "sender helps."
        ),
        ("docs/junk.md",),
    ),
    "forward-kept": Advice(mark("It would have gone nowhere: a copy lies in the Junk folder of the administrator.")),
    # --- the message
    "header-too-long": Advice(mark("Its header is longer than any honest one; what is not read cannot be judged.")),
    "judging-failed": Advice(mark("A fault in Mailstead: it lies in Junk. Please report what the log says of it.")),
    "hops": Advice(
        mark("The message has gone through more than 50 servers: it goes round in a circle."),
        mark("Look at the forwarding rules of the servers in its Received lines: one leads back to another."),
    ),
    "loop": Advice(
        mark("The message has been in this mailbox already and came back through a forwarding."),
        mark("Take the forwarding away that sends mail of this address back to it."),
        ("scripts/mailstead alias list",),
    ),
    "bayes": Advice(
        mark("Its words are like those of the mail that this account has moved into Junk, or like what it keeps."),
        mark("If it is wrong, move the message where it belongs: that is how the account teaches it."),
        ("docs/junk.md",),
    ),
    "bayes-failed": Advice(
        mark("A fault of the junk filter: the message was delivered without its judgement."),
        mark("Write to those who make Mailstead, with the id and the version."),
    ),
    "junk-*": Advice(
        mark("The message is made as junk mail is: how it is written, what it hides, where its links lead."),
        mark("One such sign means little, several count. If it is wrong, move the message back: the account learns."),
        ("docs/junk.md",),
    ),
    "known-sender": Advice(mark("This account has written to the sender, answered them, or read their mail.")),
    "first-time-sender": Advice(
        mark("This account has never had mail of this sender."),
        mark("Nothing: it counts little, and not any more once the account has answered."),
    ),
    "scanner-spam": Advice(
        mark("The scanner that you run beside this server takes it for spam."),
        mark("Teach or configure that scanner, or take it out of use."),
        ("docs/junk.md",),
    ),
    "scanner-virus": Advice(
        mark("The virus scanner found something in it."),
        mark("Believe it. If it is wrong, have the file sent in another way."),
        ("docs/junk.md",),
    ),
    "scanner-down": Advice(
        mark("The scanner did not answer, so the message was not looked at by it."),
        mark("Look at whether its container runs. What happens meanwhile is a setting."),
        ("scripts/mailstead status", "docs/junk.md"),
    ),
    "trusted-forwarder": Advice(
        mark("It came through a server that you trust; it was judged by the address from which that one had it."),
        "",
        ("TRUSTED_FORWARDERS", "docs/vps-relay.md"),
    ),
    "sieve-*": Advice(
        mark("A filter rule of the account decided this."),
        mark("The account's owner changes it on the page under Rules, or in a mail program that knows Sieve."),
        ("docs/rules.md",),
    ),
}

# Where to look when nothing is recorded, by what was asked for: an IP address, an address, anything else; then for all.
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "ip": (
        mark("A server that was never here is neither banned nor greylisted: it is judged when it first connects."),
        mark(
            "Does it reach this machine at all? From outside: nc -vz YOUR.MAIL.NAME 25. If not, look at the router, "
            "the firewall, and whether your provider closes port 25."
        ),
        mark(
            "Behind a VPS, a relay or a tunnel every peer may come with that one's address: explain that one, or name "
            "it as a trusted forwarder (env/edge.env)."
        ),
    ),
    "address": (
        mark("A list or a newsletter often sends from another address than it shows: ask for the domain's server."),
        mark("Every refusal of this server ends with an id: ask the sender for that answer, and explain the id."),
        mark("Does the domain's MX record lead here? scripts/mailstead dns show says what must be set."),
    ),
    "id": (mark("An id stands at the end of each reply of this server, a Message-ID in the message's source."),),
    "": (mark("The sender's own log says which server it spoke to, when, and what that one answered."),),
}

# What is recorded without a rule, by its kind and outcome: the engine's own refusals, log-ins, and sending.
EVENTS: dict[tuple[str, str], Advice] = {
    ("connect", "reject"): Advice(
        mark("The connection was refused before anything was said: a ban, a limit, or a peer that broke the protocol."),
        mark("If it is one of you, look at the bans and lift theirs."),
        ("scripts/mailstead ban list", "MAX_CONNECTIONS_PER_PEER"),
    ),
    ("connect", "defer"): Advice(
        mark("The connection was put off: too many at once, or an update under way."),
        mark("Nothing: the sender's server tries again by itself."),
        ("MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_PEER"),
    ),
    ("disconnect", "defer"): Advice(
        mark("This server ended the connection: too many mistakes, or too slow."),
        mark("A real sender tries again by itself. If it stays so, send its administrator the reply above."),
        ("MAX_ERRORS", "COMMAND_TIMEOUT", "DATA_TIMEOUT", "SESSION_TIMEOUT"),
    ),
    ("tls", "error"): Advice(
        mark("The two servers could not agree on encryption."),
        mark("Most senders come back without it. If it stays so: their TLS is older than 1.2, or they do not trust "
             "this server's certificate."),
        ("docs/certificates.md",),
    ),
    ("login", "reject"): Advice(
        mark("The log-in failed."),
        mark("If it is one of you: the whole address as user name, and the password typed anew in that program."),
        ("scripts/mailstead account password", "scripts/mailstead ban list", "docs/troubleshooting.md"),
    ),
    ("mail", "reject"): Advice(
        mark("The sender's server said something that mail servers do not say; the reply names it."),
        mark("Send the reply to the sender's administrator."),
    ),
    ("rcpt", "reject"): Advice(
        mark("The recipient was refused; the reply says why."),
        mark("Send the reply to the sender's administrator."),
    ),
    ("data", "reject"): Advice(
        mark("The message was refused; the reply says why."),
        mark("Send the reply to the sender's administrator."),
        ("MAX_MESSAGE_SIZE",),
    ),
    ("data", "defer"): Advice(
        mark("The message could not be made safe at once, so it was not taken."),
        mark("It is tried again by itself. If it stays so, look at how the services are."),
        ("scripts/mailstead status",),
    ),
    ("delivered", "defer"): Advice(
        mark("The mailbox could not be written, so the message was not taken."),
        mark("It is tried again by itself. If it stays so, look at how the services are."),
        ("scripts/mailstead status",),
    ),
    ("forwarded", "reject"): Advice(
        mark("The message could not be handed on for good; its author is not told, since it may be forged."),
        mark("Look at the address that the alias leads to."),
        ("scripts/mailstead alias list",),
    ),
    ("forwarded", "defer"): Advice(
        mark("The message could not be handed on now."),
        mark("It is tried again by itself. If it stays so, look at how the services are."),
        ("scripts/mailstead status",),
    ),
    ("attempt", "defer"): Advice(
        mark("The other server said: not now."),
        mark("It is tried again by itself. After you have mended something, do not wait."),
        ("scripts/mailstead queue retry", "docs/troubleshooting.md"),
    ),
    ("attempt", "reject"): Advice(
        mark("The other server refused it for good; its words are above."),
        mark("The guide says by the words of their reply what to do."),
        ("docs/troubleshooting.md", "docs/relay.md"),
    ),
    ("bounced", "reject"): Advice(mark("The sender was told that the message did not arrive.")),
    ("signed", "reject"): Advice(
        mark("The message could not be signed."),
        mark("Look at the keys of the domain."),
        ("scripts/mailstead dkim show",),
    ),
    ("submitted", "reject"): Advice(
        mark("The message was refused to the program that handed it in; the reply says why."),
        mark("Send from an address that is the account's own, or an alias of it."),
        ("scripts/mailstead alias add",),
    ),
    ("bug", "error"): Advice(
        mark("A fault of this server. Nothing was lost: the sender tries again."),
        mark("Write to those who make Mailstead, with the id and the version."),
        ("scripts/mailstead status",),
    ),
}  # fmt: skip


def advice(rule: str) -> Advice:
    """The entry of `rule`: its own, else the closest family's, else one that says nothing."""
    if found := RULES.get(rule):
        return found
    families = [name for name in RULES if name.endswith("*") and rule.startswith(name[:-1])]
    return RULES[max(families, key=len)] if families else _NOTHING


def known(rule: str) -> bool:
    """True where the table has `rule` or its family."""
    return advice(rule) is not _NOTHING
