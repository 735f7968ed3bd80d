"""Every setting: its default, its limits and the reason for both.

`Settings` is plain values, so that a running room does not carry pydantic (12.7 MiB a process). `settings.py` reads
the environment into it in a short start process; the single process fills it by hand. The variable's name is the
field's name in capitals; `Setting.file` names the file in `env/` where a person finds it ("" = internal: Compose and
tests set it, people do not).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from services.runtime.inside_values import InsideSettings
from services.runtime.setting import Setting, WrongSetting
from services.runtime.setting import setting as _setting

__all__ = ["Setting", "Settings", "WrongSetting", "defaults", "describe", "described"]

# A host name by RFC 1123 §2.1 with at least one dot: a bare name cannot receive mail from outside.
DOMAIN_PATTERN = r"(?=.{4,253}$)([a-z0-9_]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9][a-z0-9-]{0,61}[a-z0-9]"
ADDRESS_PATTERN = r"[^@\s\"<>,;:\\\[\]()]{1,64}@" + DOMAIN_PATTERN
# host, host:port, [host], [host]:port, or an IPv6 address with or without brackets.
RELAY_PATTERN = (
    r"|\[[^\s\[\]@/]+\](:[0-9]{1,5})?|[^\s\[\]@/:]+(:[0-9]{1,5})?|[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*"
)
IP_PATTERN = r"[0-9]{1,3}(\.[0-9]{1,3}){3}|\[?[0-9a-fA-F]*:[0-9a-fA-F:.]*\]?"
TRUTH_PATTERN = r"|true|false|t|f|1|0"  # as Go's strconv.ParseBool, which Watchtower uses

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings(InsideSettings):
    """All variables of all rooms; each container is given only the env files that concern it."""

    # --- the house: env/mailstead.env -------------------------------------------------------------------------
    mail_domain: str = _setting(
        "example.test", "The first domain that this server receives mail for.", "mailstead", pattern=DOMAIN_PATTERN
    )
    mail_hostname: str = _setting(
        "",
        "The name in greetings, Received lines and certificates. Empty: mail.<MAIL_DOMAIN>.",
        "mailstead",
        pattern="|" + DOMAIN_PATTERN,
    )
    admin_address: str = _setting(
        "",
        "The first administrator's address, made at the first start. Empty: admin@<MAIL_DOMAIN>.",
        "mailstead",
        pattern="|" + ADDRESS_PATTERN,
    )
    max_message_size: int = _setting(
        50 * MIB,
        "Largest message in bytes, in and out. 50 MiB carries the 25 MB attachments that large providers allow, "
        "after base64 made them a third longer.",
        "mailstead",
        least=64 * 1024,
        most=1024 * MIB,
    )
    log_level: str = _setting(
        "info", "How much each container prints.", "mailstead", choices=("debug", "info", "warning", "error")
    )

    # --- certificates: env/tls.env ----------------------------------------------------------------------------
    ssl_type: str = _setting(
        "self-signed",
        "Where the certificate comes from: made here (clients warn once), certbot's /etc/letsencrypt mounted "
        "read-only into the acme container, or two files of your own.",
        "tls",
        choices=("self-signed", "letsencrypt", "manual"),
    )
    ssl_cert_path: str = _setting("", "SSL_TYPE=manual: the chain, as the acme container sees it.", "tls")
    ssl_key_path: str = _setting("", "SSL_TYPE=manual: the key, as the acme container sees it.", "tls")

    # --- sending: env/relay.env -------------------------------------------------------------------------------
    relay_host: str = _setting(
        "",
        "Send through this relay (smtp-relay.brevo.com, [smtp.example.net]:465). Empty: deliver to each domain's MX, "
        "which needs port 25 outward.",
        "relay",
        pattern=RELAY_PATTERN,
        form="host, host:port or [host]:port",
    )
    relay_port: int = _setting(587, "The relay's port, unless RELAY_HOST names one.", "relay", least=1, most=65535)
    relay_user: str = _setting("", "Log-in name at the relay. Empty: no log-in.", "relay")
    relay_password: str = _setting("", "Password at the relay.", "relay", secret=True)
    relay_tls: str = _setting(
        "",
        "starttls, tls (from the first byte) or none. Empty: tls on port 465, else starttls. With starttls and tls the "
        "relay's certificate must be right: it is given your password.",
        "relay",
        choices=("", "starttls", "tls", "none"),
    )
    relay_ca_file: str = _setting(
        "", "A CA file for the relay's certificate, as the smtp-out container sees it. Empty: the system's.", "relay"
    )
    relay_signatures: str = _setting(
        "rsa",
        "DKIM signatures on mail through the relay: rsa, or both (RSA and Ed25519). Some relays refuse or break two.",
        "relay",
        choices=("rsa", "both"),
    )

    # --- limits: env/limits.env -------------------------------------------------------------------------------
    max_connections: int = _setting(
        500, "Connections a listener holds at once; the next gets 421.", "limits", least=1, most=100_000
    )
    max_connections_per_peer: int = _setting(
        50,
        "Connections from one address (IPv6: one /64). A family behind one router with three clients each stays far "
        "below.",
        "limits",
        least=1,
        most=100_000,
    )
    max_recipients: int = _setting(
        200, "Recipients of one message. RFC 5321 §4.5.3.1.8 asks for at least 100.", "limits", least=100, most=10_000
    )
    smtp_workers: int = _setting(
        1,
        "Processes that receive mail side by side; more than the machine has cores bring nothing. Limits of "
        "connections and rates are shared out among them, so close to a limit one may refuse while another has room.",
        "limits",
        least=1,
        most=16,
    )
    max_errors: int = _setting(
        10, "Bad commands in one SMTP or IMAP session before it is closed.", "limits", least=1, most=1000
    )
    command_timeout: int = _setting(
        300, "Seconds to wait for the next SMTP command (RFC 5321 §4.5.3.2.7: 5 minutes).", "limits", least=5, most=3600
    )
    data_timeout: int = _setting(
        180, "Seconds to wait for more of a message (RFC 5321 §4.5.3.2.5: 3 minutes).", "limits", least=5, most=3600
    )
    session_timeout: int = _setting(
        3600, "Longest SMTP session in seconds: bounds who sends one byte a minute.", "limits", least=60, most=86_400
    )
    imap_idle_timeout: int = _setting(
        1860, "Seconds of silence before IMAP logs out. RFC 3501 §5.4: at least 30 minutes.", "limits", least=1800
    )
    imap_login_timeout: int = _setting(60, "Seconds an IMAP client may take to log in.", "limits", least=5, most=600)
    disk_reserve_percent: int = _setting(
        5, "Percent of the disk kept free: below it new mail waits at the sender (452).", "limits", least=0, most=50
    )
    disk_reserve_bytes: int = _setting(
        200 * MIB, "The same in bytes; the smaller of the two counts.", "limits", least=0
    )
    default_quota: int = _setting(0, "Bytes of mail a new account may keep; 0: no limit.", "limits", least=0)
    ban_failures: int = _setting(
        10, "Failed log-ins from one address within BAN_WINDOW before it is banned.", "limits", least=3, most=1000
    )
    ban_window: int = _setting(600, "Seconds in which failures are counted.", "limits", least=60, most=86_400)
    ban_seconds: int = _setting(900, "Seconds a first ban lasts; each next one doubles, to a day.", "limits", least=60)

    # --- the queue: env/queue.env -----------------------------------------------------------------------------
    retry_first: int = _setting(
        300, "Seconds until the first retry; each next wait is double.", "queue", least=1, most=86_400
    )
    retry_most: int = _setting(14_400, "Longest wait between two retries in seconds.", "queue", least=60, most=86_400)
    give_up_after: int = _setting(
        432_000,
        "Seconds after which undeliverable mail goes back (RFC 5321 §4.5.4.1: 4-5 days).",
        "queue",
        least=3600,
        most=2_592_000,
    )
    warn_after: int = _setting(
        14_400, "Seconds after which the sender is told once that mail is late.", "queue", least=600
    )
    out_concurrency: int = _setting(
        20, "Outgoing connections at once; 4 of them to one destination.", "queue", least=1, most=500
    )
    out_ipv6: str = _setting(
        "no",
        "Whether mail goes to other domains' servers over IPv6 too. Large providers refuse it from an address without "
        "a PTR record, which homes seldom have. no: over IPv6 only to servers that have no IPv4 address.",
        "queue",
        choices=("yes", "no"),
    )
    forward_per_day: int = _setting(
        100,
        "Messages a day that aliases may send on to addresses elsewhere; more wait in the queue until the next day "
        "(UTC) and the administrator is told at 80 %. A relay for a family takes some 300 a day, and your own mail "
        "needs room. 0: no limit.",
        "queue",
        least=0,
        most=10_000_000,
    )
    forward_route: str = _setting(
        "",
        "How such mail leaves: relay, or direct to the target's own servers (many relays refuse mail whose From is not "
        "yours). Empty: as all other mail.",
        "queue",
        choices=("", "relay", "direct"),
    )

    spam_scanner: str = _setting(
        "",
        "A scanner for junk beside the house's own filter, in a container of its own: rspamd or "
        "spamassassin; (empty): none.",
        "filter",
        choices=("", "rspamd", "spamassassin"),
    )
    virus_scanner: str = _setting(
        "",
        "clamav looks for viruses in each message, in a container of its own; it needs memory for two "
        "copies of its signatures. (empty): none.",
        "filter",
        choices=("", "clamav"),
    )
    virus_found: str = _setting(
        "reject",
        "What becomes of a message with a virus. reject: refused, so that a sender who did not know hears of it. junk: "
        "into the Junk folder, for who wants to see it.",
        "filter",
        choices=("reject", "junk"),
    )
    scanner_down: str = _setting(
        "mark",
        "What becomes of mail while a scanner does not answer. mark: delivered, and the record says that nobody "
        "looked. defer: it waits at its sender until the scanner is back.",
        "filter",
        choices=("mark", "defer"),
    )

    # --- mail that comes through a VPS or a tunnel: env/edge.env ------------------------------------------------
    trusted_forwarders: str = _setting(
        "",
        "Addresses or networks of mail servers of yours that hand on mail for you (a Postfix on a VPS, a backup MX), "
        "separated by commas. The true client is taken from what they say, and they are never delayed or banned. Whom "
        "you name by address alone is believed because you say so: name no address that others share. Where "
        "TRUSTED_FORWARDER_CERTS is set too, both must match.",
        "edge",
    )
    trusted_forwarder_certs: str = _setting(
        "",
        "SHA-256 fingerprints of the TLS client certificates of such servers, separated by commas, as `openssl x509 "
        "-noout -fingerprint -sha256` prints them. Needs no fixed address; port 25 then asks clients for certificates.",
        "edge",
    )
    proxy_peers: str = _setting(
        "",
        "Addresses or networks that may speak the PROXY protocol at the port for it (frp, HAProxy), separated by "
        "commas. Empty: that port closes every connection. A proxy on this machine may arrive as the gateway of the "
        "stack's network: `mailstead trace` shows the address that was turned away.",
        "edge",
    )

    # --- records: env/events.env ------------------------------------------------------------------------------
    events_days: int = _setting(
        30, "Days that the record of each connection and message is kept.", "events", least=1, most=3650
    )
    events_bytes: int = _setting(
        64 * MIB, "Bytes a container's record may take; the oldest segments go first.", "events", least=MIB
    )

    # --- the admin page: env/admin.env ------------------------------------------------------------------------
    admin_hosts: str = _setting(
        "",
        "More names under which the admin page may be opened, separated by commas (it checks the Host header).",
        "admin",
    )

    admin_bind: str = _setting(
        "127.0.0.1",
        "The machine's address that the admin page is opened on (env/ports.env). Any but loopback: with TLS.",
        pattern=IP_PATTERN,
        form="an address of this machine such as 192.168.1.5, or 0.0.0.0 for all",
    )

    # --- updates: env/updater.env -----------------------------------------------------------------------------
    update_mode: str = _setting(
        "watch",
        "watch: newer images are reported, and replaced when you say `mailstead update run`. update: they are "
        "replaced by themselves. off: nobody looks. A container's label `mailstead.update` says otherwise for it "
        "alone.",
        "updater",
        choices=("off", "watch", "update"),
    )
    update_schedule: str = _setting(
        "30 4 * * *",
        "When the updater compares images with their registries: a cron line (UTC), or `@every 6h`.",
        "updater",
    )
    update_min_age: int = _setting(
        24,
        "Hours that an image must be old before it is taken by itself: a bad release is usually withdrawn within a "
        "day. A run by hand does not wait.",
        "updater",
        least=0,
        most=8760,
    )
    update_cleanup: str = _setting(
        "yes",
        "Whether images of earlier updates are removed; those before the last one stay, for a rollback.",
        "updater",
        choices=("yes", "no"),
    )
    update_health_seconds: int = _setting(
        60,
        "Seconds that new containers may take to become healthy, and mail to go through them, before the old ones "
        "come back. Mail waits at its senders meanwhile.",
        "updater",
        least=5,
        most=900,
    )
    update_webhook_url: str = _setting(
        "",
        "Where each result is posted to as JSON (http or https). Empty: nowhere. Administrators are sent mail anyway.",
        "updater",
        pattern=r"|https?://[^\s/]+(/\S*)?",
        form="an http or https address",
        secret=True,  # its path often is the token
    )
    watchtower_poll_interval: str = _setting(
        "",
        "Watchtower's words are understood, and win over the ones above where they are set. Seconds between two looks.",
        "updater",
        pattern=r"|[1-9][0-9]{1,6}",
    )
    watchtower_schedule: str = _setting(
        "", "Watchtower's cron line of six fields, seconds first; instead of the interval.", "updater"
    )
    watchtower_cleanup: str = _setting("", "true or false: as UPDATE_CLEANUP.", "updater", pattern=TRUTH_PATTERN)
    watchtower_monitor_only: str = _setting(
        "", "true: UPDATE_MODE=watch; false: UPDATE_MODE=update.", "updater", pattern=TRUTH_PATTERN
    )
    watchtower_no_restart: str = _setting(
        "",
        "true: newer images are pulled, but no container is replaced; your next `docker compose up -d` does it.",
        "updater",
        pattern=TRUTH_PATTERN,
    )
    watchtower_label_enable: str = _setting(
        "",
        "true: only containers with the label `com.centurylinklabs.watchtower.enable=true` (or `mailstead.update`).",
        "updater",
        pattern=TRUTH_PATTERN,
    )

    # --- DNS: env/dns.env -------------------------------------------------------------------------------------
    dns_forward_to: str = _setting(
        "",
        "Addresses that unbound asks instead of the root servers, separated by commas: where the provider blocks "
        "port 53. DNSBL and DANE work less well then.",
        "dns",
    )
    dns_validate: str = _setting(
        "yes",
        "Whether unbound checks DNSSEC. no only where DNS_FORWARD_TO names resolvers that cut the signatures off and "
        "every name fails; DANE is off then.",
        "dns",
        choices=("yes", "no"),
    )

    @property
    def hostname(self) -> str:
        """The name this server calls itself."""
        return (self.mail_hostname or f"mail.{self.mail_domain}").lower()

    @property
    def admin_tls(self) -> bool:
        """Whether the admin page is open to more than this machine, and so has TLS."""
        return not (self.admin_bind.startswith("127.") or self.admin_bind.strip("[]") == "::1")

    @property
    def administrator(self) -> str:
        """The first administrator's address."""
        return (self.admin_address or f"admin@{self.mail_domain}").lower()


def describe(name: str) -> Setting:
    """What `Settings` says of the field `name`; raises KeyError for an unknown one."""
    return described()[name]


def described() -> dict[str, Setting]:
    """Field name → its `Setting`, in the order of the class."""
    return {f.name: f.metadata["setting"] for f in dataclasses.fields(Settings)}


def defaults() -> dict[str, object]:
    """Field name → its default."""
    return {f.name: f.default for f in dataclasses.fields(Settings)}
