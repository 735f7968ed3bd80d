"""Which scanners the settings name."""

from __future__ import annotations

from services.runtime.listener import host_and_port
from services.runtime.values import Settings
from services.smtp_in.scanners.clamav import ClamAV
from services.smtp_in.scanners.finding import Scanner
from services.smtp_in.scanners.rspamd import Rspamd
from services.smtp_in.scanners.spamassassin import SpamAssassin


def chosen(settings: Settings) -> tuple[Scanner, ...]:
    """Those that are on, none by default."""
    scanners: list[Scanner] = []
    if settings.spam_scanner == "rspamd":
        scanners.append(Rspamd(*host_and_port(settings.rspamd_address)))
    if settings.spam_scanner == "spamassassin":
        scanners.append(SpamAssassin(*host_and_port(settings.spamassassin_address)))
    if settings.virus_scanner == "clamav":
        scanners.append(ClamAV(*host_and_port(settings.clamav_address)))
    return tuple(scanners)
