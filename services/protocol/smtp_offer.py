"""What an SMTP or LMTP listener offers and bounds, and how EHLO's answer says so.

A value made once per listener and shared by its sessions (`smtp_session.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.protocol.smtp_xclient import XCLIENT, XFORWARD

_ALWAYS = frozenset({"SIZE", "BODY", "SMTPUTF8"})
_NONE: frozenset[str] = frozenset()
_DSN_ON_RCPT = frozenset({"NOTIFY", "ORCPT"})


@dataclass(frozen=True, slots=True)
class Offer:
    """Sizes in octets. `extensions` are more EHLO lines; "XMAILSTEAD 1" also allows XTRACE on MAIL.

    `chunking`, `dsn`, `requiretls` and `limits` offer RFC 3030, RFC 3461, RFC 8689 and RFC 9422.
    """

    hostname: str
    size_limit: int
    lmtp: bool = False
    starttls: bool = False
    auth: tuple[str, ...] = ()
    auth_requires_tls: bool = True
    require_auth: bool = False
    extensions: tuple[str, ...] = ()
    chunking: bool = False
    dsn: bool = False
    requiretls: bool = False
    limits: bool = False
    max_recipients: int = 200
    max_errors: int = 10
    max_idle_commands: int = 100
    _mail: tuple[frozenset[str], frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """The parameters of MAIL without and with TLS, made once for all sessions."""
        object.__setattr__(self, "_mail", (self._allowed(secured=False), self._allowed(secured=True)))

    def reply(self, *, secured: bool, authenticated: bool, trusted: bool = False) -> Reply:
        """The usual answer to EHLO and LHLO; `trusted` is a relay of the owner's."""
        offered = ["PIPELINING", f"SIZE {self.size_limit}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        if self.chunking:
            offered.append("CHUNKING")
        if self.dsn:
            offered.append("DSN")
        if self.requiretls and self._protected(secured):
            offered.append("REQUIRETLS")
        if self.limits:
            # RFC 9422 §4.2; no MAILMAX: a session may carry any number of messages while it lasts.
            offered.append(f"LIMITS RCPTMAX={self.max_recipients}")
        if self.starttls and not secured:
            offered.append("STARTTLS")
        # RFC 4954 §3: not while it would be refused, or a client sends the password in clear to find out.
        if self.auth and not authenticated and (secured or not self.auth_requires_tls):
            offered.append("AUTH " + " ".join(self.auth))
        if trusted:
            offered += ["XCLIENT " + " ".join(XCLIENT), "XFORWARD " + " ".join(XFORWARD)]
        return replies.extensions(self.hostname, [*offered, *self.extensions, "HELP"])

    def mail_parameters(self, *, secured: bool) -> frozenset[str]:
        """The parameters that MAIL may have."""
        return self._mail[secured]

    def _allowed(self, *, secured: bool) -> frozenset[str]:
        allowed = set(_ALWAYS)
        if self.auth:
            allowed.add("AUTH")
        if self.dsn:
            allowed |= {"RET", "ENVID"}
        if self.requiretls and self._protected(secured):
            allowed.add("REQUIRETLS")
        if any(line.startswith("XMAILSTEAD") for line in self.extensions):
            allowed.add("XTRACE")
        return frozenset(allowed)

    def rcpt_parameters(self) -> frozenset[str]:
        """The parameters that RCPT may have."""
        return _DSN_ON_RCPT if self.dsn else _NONE

    def _protected(self, secured: bool) -> bool:
        """RFC 8689 §2: only under TLS; a network of two rooms' own, where passwords may travel, is as good."""
        return secured or bool(self.auth and not self.auth_requires_tls)
