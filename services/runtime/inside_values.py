"""Settings that Compose, the single process and tests set, and people do not: folders, listeners, neighbours.

Fields of `values.Settings`, in a module of their own for their number.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.runtime.filter_values import FilterSettings
from services.runtime.setting import setting as _setting

# Compose's own rule for a project's name.
PROJECT_PATTERN = r"[a-z0-9][a-z0-9_-]{0,62}"
REGISTRY_PATTERN = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-][a-z0-9]+)*)*"
HOST_PORT_PATTERN = r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]]*):[0-9]{1,5}"


@dataclass(frozen=True, slots=True)
class InsideSettings(FilterSettings):
    """Each room is given those that concern it."""

    mail_dir: str = _setting("/var/mail", "The Maildir volume.")
    state_dir: str = _setting("/var/lib/mailstead/imap", "state.db and cache.db of each account.")
    spool_dir: str = _setting("/var/spool/mailstead", "The queue.")
    admin_dir: str = _setting("/var/lib/mailstead/admin", "directory.db and events.db.")
    routing_dir: str = _setting("/var/lib/mailstead/routing", "Published snapshots without secrets.")
    auth_dir: str = _setting("/var/lib/mailstead/auth", "Published snapshots with password hashes.")
    personal_dir: str = _setting(
        "/var/lib/mailstead/personal", "What imap publishes of each account for smtp-in: filter rules, junk memory."
    )
    certs_dir: str = _setting("/var/lib/mailstead/certs", "Certificates that acme installed.")
    dkim_dir: str = _setting("/var/lib/mailstead/dkim", "DKIM private keys.")
    events_dir: str = _setting("/var/lib/mailstead/events", "A folder of event segments per room.")
    room_dir: str = _setting("/var/lib/mailstead/room", "A room's own small durable state.")
    secrets_dir: str = _setting("/run/mailstead/secrets", "The secrets this room shares with its peers.")

    # Each may be several host:port separated by commas, the one for the world first: on the host's own network the
    # neighbours come in by an address of the stack's, whatever BIND_ADDRESS says.
    smtp_listen: str = _setting(":25", "smtp-in: host:port; an empty host is every v4 and v6 address.")
    smtp_proxy_listen: str = _setting(":10025", "smtp-in: mail through proxies, with the PROXY header.")
    lmtp_listen: str = _setting(":24", "smtp-in: LMTP from smtp-out.")
    submissions_listen: str = _setting(":465", "smtp-out: implicit TLS.")
    submission_listen: str = _setting(":587", "smtp-out: STARTTLS.")
    forward_listen: str = _setting(":10025", "smtp-out: forwards from smtp-in.")
    imaps_listen: str = _setting(":993", "imap: implicit TLS.")
    imap_listen: str = _setting(":143", "imap: STARTTLS.")
    admin_listen: str = _setting(":8080", "admin: page and API.")
    http_listen: str = _setting(":8000", "HTTP between rooms, and /health.")

    client_imaps_port: int = _setting(
        993, "admin: the port of this machine at which mail clients read; shown in their set-up.", least=1, most=65535
    )
    client_submissions_port: int = _setting(
        465, "admin: the port of this machine at which mail clients send.", least=1, most=65535
    )

    smtp_in_url: str = _setting("http://smtp-in:8000", "Where the smtp-in room answers.")
    smtp_out_url: str = _setting("http://smtp-out:8000", "Where the smtp-out room answers.")
    imap_url: str = _setting("http://imap:8000", "Where the imap room answers.")
    dkim_url: str = _setting("http://dkim:8000", "Where the dkim room answers.")
    acme_url: str = _setting("http://acme:8000", "Where the acme room answers.")
    admin_url: str = _setting("http://admin:8000", "Where the admin room answers other rooms.")
    updater_url: str = _setting("http://updater:8000", "Where the updater room answers.")
    lmtp_address: str = _setting("smtp-in:24", "Where smtp-out delivers local mail.", pattern=HOST_PORT_PATTERN)
    forward_address: str = _setting("smtp-out:10025", "Where smtp-in hands over forwards.", pattern=HOST_PORT_PATTERN)
    proof_addresses: str = _setting(
        "smtp-in:25,smtp-out:465,smtp-out:587,imap:993,imap:143",
        "acme: the listeners whose served certificate is checked; empty: none.",
    )
    gate_addresses: str = _setting(
        "smtp-in:25,smtp-out:465,imap:993", "admin: the listeners that the mail gate tries, in this order."
    )
    resolver: str = _setting("unbound:53", "The only resolver; empty: the system's.", pattern="|" + HOST_PORT_PATTERN)
    rspamd_address: str = _setting("rspamd:11333", "smtp-in: rspamd's normal worker.", pattern=HOST_PORT_PATTERN)
    spamassassin_address: str = _setting("spamassassin:7830", "smtp-in: spamd.", pattern=HOST_PORT_PATTERN)
    clamav_address: str = _setting("clamav:3310", "smtp-in: clamd.", pattern=HOST_PORT_PATTERN)
    docker_url: str = _setting("tcp://docker-filter:2375", "updater: the filtered Docker API.")
    docker_listen: str = _setting(":2375", "docker-filter: the filtered Docker API, for the updater.")
    docker_socket: str = _setting("/var/run/docker.sock", "docker-filter: where it sees the Docker engine's socket.")
    compose_project_name: str = _setting(
        "mailstead",
        "docker-filter: whose containers it knows.",
        pattern=PROJECT_PATTERN,
        form="a project's name as Compose takes it",
    )
    mailstead_registry: str = _setting(
        "ghcr.io/mailstead",
        "docker-filter: whose images it knows, host and folder.",
        pattern=REGISTRY_PATTERN,
        form="a host and folder such as ghcr.io/mailstead",
    )
    mx_port: int = _setting(25, "Port of other domains' mail servers; tests move it.", least=1, most=65535)
    grace_seconds: int = _setting(10, "Seconds that a stopping room lets work in flight end.", least=0, most=120)
    single_process: bool = _setting(False, "True where all rooms share one process.")
