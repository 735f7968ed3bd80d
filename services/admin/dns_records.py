"""The DNS records a domain needs, and what each is for: pure, from values to values.

Two ways of sending: directly to each recipient's server, or through a relay host. They differ in SPF, in the PTR record
that only direct sending needs, and in how many DKIM signatures there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.admin.text import _

# What relays ask to be put into SPF, from their public documentation as of 2026; for others the owner is told to look.
RELAY_SPF = {
    "brevo.com": "spf.brevo.com",
    "sendinblue.com": "spf.brevo.com",
    "amazonaws.com": "amazonses.com",
    "mailgun.org": "mailgun.org",
    "sendgrid.net": "sendgrid.net",
    "smtpdm.aliyun.com": "spf1.dm.aliyun.com",
    "qcloudmail.com": "qcloudmail.com",
}
TTL = 3600


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `value` is what most DNS pages want typed in, `zone` its line in a zone file.

    `needed`: required, recommended, or elsewhere (not in this zone: a thing to ask the provider for).
    """

    name: str
    type: str
    value: str
    needed: str
    why: str
    zone: str

    def as_json(self) -> dict[str, str]:
        """The fields by name."""
        return {
            "name": self.name,
            "type": self.type,
            "value": self.value,
            "needed": self.needed,
            "why": self.why,
            "zone": self.zone,
        }


def records(domain: str, hostname: str, dkim: Sequence[Mapping[str, Any]], relay: str, *, both: bool) -> list[Record]:
    """What to set for `domain`. `hostname`: this server's; `dkim`: what the dkim room shows; `relay`: a host or "";
    `both`: mail is signed with both kinds of keys."""
    return [
        *_server(domain, hostname, relay),
        _record(domain, "MX", f"10 {hostname}.", "required", _("Mail for this domain comes to this server.")),
        _record(domain, "TXT", f"v=spf1 mx{_include(relay)} ~all", "required", _why_spf(relay)),
        *_dkim(dkim, both),
        _record(
            f"_dmarc.{domain}",
            "TXT",
            f"v=DMARC1; p=none; rua=mailto:postmaster@{domain}",
            "required",
            _(
                "What others do with mail in your name that is not yours (RFC 9989). Start with p=none, read the "
                "reports that come to postmaster, and make it p=quarantine when only strangers fail."
            ),
        ),
        *_clients(domain, hostname),
    ]


def zone_text(found: Sequence[Record]) -> str:
    """The records as lines for a zone file; what is not for this zone is a comment."""
    lines = [f"; {record.why}\n{record.zone}" for record in found if record.needed != "elsewhere"]
    lines += [
        f"; elsewhere: {record.type} {record.name} {record.value}" for record in found if record.needed == "elsewhere"
    ]
    return "\n".join(lines) + "\n"


def _server(domain: str, hostname: str, relay: str) -> list[Record]:
    found = []
    if hostname == domain or hostname.endswith("." + domain):
        why = _("Where this server is. Your public address; leave AAAA out if you have no IPv6.")
        found.append(
            Record(hostname, "A", _("your public IPv4 address"), "required", why, f"; {hostname}. {TTL} IN A ...")
        )
        found.append(
            Record(
                hostname, "AAAA", _("your public IPv6 address"), "recommended", why, f"; {hostname}. {TTL} IN AAAA ..."
            )
        )
    if not relay:
        found.append(
            Record(
                _("your public address"),
                "PTR",
                f"{hostname}.",
                "elsewhere",
                _(
                    "Whoever gave you the address sets this on their pages. Without it most servers refuse your mail; "
                    "where you cannot have it, send through a relay host (env/relay.env)."
                ),
                f"; PTR {hostname}.",
            )
        )
    return found


def _include(relay: str) -> str:
    for suffix, name in RELAY_SPF.items():
        if relay == suffix or relay.endswith("." + suffix):
            return f" include:{name}"
    return ""


def _why_spf(relay: str) -> str:
    if not relay:
        return _("Who may send in this domain's name (RFC 7208): this server.")
    if _include(relay):
        return _("Who may send in this domain's name (RFC 7208): this server and your relay {relay}.").format(
            relay=relay
        )
    return _(
        "Who may send in this domain's name (RFC 7208): this server. Your relay {relay} names an include:... "
        "of its own in its documentation: put it in before ~all."
    ).format(relay=relay)


def _dkim(dkim: Sequence[Mapping[str, Any]], both: bool) -> list[Record]:
    found = []
    for key in dkim:
        value = str(key["value"])
        elliptic = "k=ed25519" in value
        if elliptic and not both:
            continue  # RSA alone signs through a relay by default: some break or refuse a second signature
        needed = "recommended" if elliptic else "required"
        why = _("Others check your signatures with it (RFC 6376).")
        if elliptic:
            why = _("The same with a newer kind of key (RFC 8463), beside the other.")
        elif len(value) > 255:
            why += " " + _(
                "Where a page takes no more than 255 characters at once, give it the quoted pieces one after another."
            )
        zone = " ".join(f'"{piece}"' for piece in key.get("chunks") or [value])
        name = str(key["name"])
        found.append(Record(name, "TXT", value, needed, why, f"{name}. {TTL} IN TXT {zone}"))
    return found


def _clients(domain: str, hostname: str) -> list[Record]:
    # RFC 6186 and RFC 8314 §5.1: how a mail client finds the servers by itself.
    why = _("Mail clients find the server by the address alone.")
    return [
        _record(f"_{service}._tcp.{domain}", "SRV", f"0 1 {port} {hostname}.", "recommended", why)
        for service, port in (("imaps", 993), ("submissions", 465), ("submission", 587))
    ]


def _record(name: str, kind: str, value: str, needed: str, why: str) -> Record:
    shown = f'"{value}"' if kind == "TXT" else value
    return Record(name, kind, value, needed, why, f"{name}. {TTL} IN {kind} {shown}")
