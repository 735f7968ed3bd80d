"""The settings that say what is done with mail from outside: env/filter.env. Part of `values.Settings`."""

from __future__ import annotations

from dataclasses import dataclass

from services.runtime.setting import setting

SCORE_PATTERN = r"[0-9]{1,4}(\.[0-9]{1,2})?"
# zone=weight, then any @code or @code-code; policy/dnsbl.py reads it.
_LIST = (
    r"([a-z0-9_-]{1,63}\.)+[a-z0-9-]{2,63}=-?[0-9]{1,3}(\.[0-9]{1,2})?(@127(\.[0-9]{1,3}){3}(-127(\.[0-9]{1,3}){3})?)*"
)
DNSBL_PATTERN = rf"|{_LIST}(\s*,\s*{_LIST})*"


@dataclass(frozen=True, slots=True)
class FilterSettings:
    """Defaults for a family: what is doubtful is marked, what is marked lies in Junk, and nothing is lost."""

    spf_fail: str = setting(
        "junk",
        "Mail whose sender's domain says that this server may not send for it (SPF fail). junk: into the Junk folder. "
        "reject: refused. tag: delivered, and only its header says so.",
        "filter",
        choices=("junk", "reject", "tag"),
    )
    dmarc_fail: str = setting(
        "junk",
        "Mail that fails the DMARC policy of the domain in its From, where that asks for quarantine or reject. junk: "
        "into the Junk folder. reject: refused. honor: what the domain asks for. tag: only its header says so.",
        "filter",
        choices=("junk", "reject", "honor", "tag"),
    )
    forward_junk: str = setting(
        "keep",
        "Junk for an address that only leads elsewhere (an alias or catch-all to another provider): it is never sent "
        "on, since what we send is held against us. keep: in the Junk of the first administrator. refuse: refused; "
        "what was taken for junk by mistake then only its sender hears of.",
        "filter",
        choices=("keep", "refuse"),
    )
    mail_checks: str = setting(
        "on",
        "Whether mail from outside is judged at all: SPF, DKIM, DMARC, names, lists, score. off: delivered as it "
        "comes, without a question to DNS.",
        "filter",
        choices=("on", "off"),
    )
    junk_filter: str = setting(
        "on",
        "Whether messages are read for signs of junk, and by the words of what each account has sorted. off: only who "
        "sends is judged.",
        "filter",
        choices=("on", "off"),
    )
    junk_score: str = setting(
        "5.0",
        "Points from which a message is junk. Every reason in `mailstead explain` says its own.",
        "filter",
        pattern=SCORE_PATTERN,
        form="a number such as 5 or 6.5",
    )
    reject_score: str = setting(
        "",
        "Points from which a message is refused instead of put into Junk. Empty: never; what is refused by mistake, "
        "nobody here finds again.",
        "filter",
        pattern="|" + SCORE_PATTERN,
        form="a number such as 15, or nothing",
    )
    dnsbl_lists: str = setting(
        "",
        "Lists of bad senders' addresses that are asked, separated by commas, each with the points of a listing: "
        "zen.spamhaus.org=4,bl.spamcop.net=2. Only some answers of a list: zen.spamhaus.org=4@127.0.0.2-127.0.0.7. A "
        "list of good senders has points below zero: list.dnswl.org=-2. Empty: none; each tells its keeper who writes "
        "to you.",
        "filter",
        pattern=DNSBL_PATTERN,
        form="lists and points such as zen.spamhaus.org=4,bl.spamcop.net=2",
        secret=True,  # a paid list's zone holds its owner's key
    )
    arc_sealers: str = setting(
        "",
        "Domains whose word is taken for mail that they changed on its way (mailing lists, forwarders that seal with "
        "ARC), separated by commas: what passed DMARC when it reached them is not junk for failing it here.",
        "filter",
    )
    greylist: str = setting(
        "no",
        "yes: a sender who is not known yet is told to come back in a few minutes; servers do, many spammers do not. "
        "It delays a first letter and loses none. no: nobody waits.",
        "filter",
        choices=("no", "yes"),
    )
    greylist_seconds: int = setting(300, "How soon such a sender may come back.", "filter", least=10, most=3600)
    rate_per_address: int = setting(
        1000,
        "Messages an hour from one address (IPv6: one /64); more wait at their sender. 0: no limit.",
        "filter",
        least=0,
        most=10_000_000,
    )
    rate_per_network: int = setting(
        3000,
        "The same from one network (/24, IPv6: /48): large providers send from several machines of one.",
        "filter",
        least=0,
        most=10_000_000,
    )
    rate_per_sender: int = setting(
        1000,
        "The same in the name of one sender's address. A forged name counts apart, by the network that it comes from.",
        "filter",
        least=0,
        most=10_000_000,
    )
