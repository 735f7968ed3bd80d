"""What an SMTP or LMTP listener offers and bounds, and how EHLO's answer says so.

A value made once per listener and shared by its sessions (`smtp_session.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from services.protocol import reply as replies
from services.protocol.reply import Reply

_ALWAYS = frozenset({"SIZE", "BODY", "SMTPUTF8"})


@dataclass(frozen=True, slots=True)
class Offer:
    """Sizes in octets. `extensions` are more EHLO lines; "XMAILSTEAD 1" also allows XTRACE on MAIL."""

    hostname: str
    size_limit: int
    lmtp: bool = False
    starttls: bool = False
    auth: tuple[str, ...] = ()
    auth_requires_tls: bool = True
    require_auth: bool = False
    extensions: tuple[str, ...] = ()
    max_recipients: int = 200
    max_errors: int = 10
    max_idle_commands: int = 100

    def reply(self, *, secured: bool, authenticated: bool) -> Reply:
        """The usual answer to EHLO and LHLO."""
        offered = ["PIPELINING", f"SIZE {self.size_limit}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        if self.starttls and not secured:
            offered.append("STARTTLS")
        # RFC 4954 §3: not while it would be refused, or a client sends the password in clear to find out.
        if self.auth and not authenticated and (secured or not self.auth_requires_tls):
            offered.append("AUTH " + " ".join(self.auth))
        return replies.extensions(self.hostname, [*offered, *self.extensions, "HELP"])

    def mail_parameters(self) -> frozenset[str]:
        """The parameters that MAIL may have."""
        allowed = _ALWAYS | {"AUTH"} if self.auth else _ALWAYS
        return allowed | {"XTRACE"} if any(line.startswith("XMAILSTEAD") for line in self.extensions) else allowed
