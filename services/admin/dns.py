"""Gathers what `dns_records.py` needs: the domain's keys from dkim, the way of sending from smtp-out."""

from __future__ import annotations

from typing import Any

from services.admin.dns_records import records, zone_text
from services.admin.parts import Parts
from services.admin.peers import PeerAway, PeerSaid
from services.directory.addresses import domain_name
from services.directory.errors import NotFound


async def dkim_records(parts: Parts, domain: str) -> list[dict[str, Any]]:
    """The DKIM records of a local domain. Raises InvalidName, NotFound, PeerAway, PeerSaid."""
    name = await _local(parts, domain)
    answer = await parts.peers.ask("dkim", "GET", "/v1/keys", query={"domain": name})
    return list(answer["records"])


async def dns_records(parts: Parts, domain: str) -> dict[str, Any]:
    """All records of a local domain, and the lines for a zone file. Raises InvalidName, NotFound."""
    name = await _local(parts, domain)
    notes = []
    try:
        dkim = await dkim_records(parts, name)
    except (PeerAway, PeerSaid) as error:
        dkim = []
        notes.append(f"the DKIM records are missing here: {error}")
    relay, both = await sending(parts)
    found = records(name, parts.context.settings.hostname, dkim, relay, both=both)
    return {
        "domain": name,
        "sending": f"through the relay {relay}" if relay else "directly",
        "relay": relay,
        "records": [record.as_json() for record in found],
        "zone": zone_text(found),
        "notes": notes,
    }


async def sending(parts: Parts) -> tuple[str, bool]:
    """The relay that smtp-out sends through ("": directly), and whether it has both kinds of signatures made.

    The relay's settings are given to smtp-out alone, so it is asked; in one process the settings here are the same.
    """
    settings = parts.context.settings
    relay, signatures = settings.relay_host, settings.relay_signatures
    try:
        answer = await parts.peers.ask("smtp-out", "GET", "/v1/status")
        relay, signatures = str(answer["relay"]), str(answer["signatures"])
    except (PeerAway, PeerSaid, KeyError, TypeError):
        pass
    # RELAY_HOST may be [host]:port, as docker-mailserver writes it.
    host = relay.strip().removeprefix("[").partition("]")[0].partition(":")[0].lower()
    return host, signatures == "both" or not host


async def _local(parts: Parts, domain: str) -> str:
    name = domain_name(domain)
    if name not in [each.name for each in await parts.operations.domains()]:
        raise NotFound(f"the domain {name} is not here")
    return name
