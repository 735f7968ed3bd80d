"""How a connection to a destination is secured, in one table, in prose first.

* Our own smtp-in: no TLS. The network between the two rooms carries nothing else, and the pair's secret logs us in.
* The relay: STARTTLS on 587, TLS from the first byte on 465, or as RELAY_TLS says; its certificate must be right,
  because it is given the owner's password. `none` is the owner's word for a network he trusts.
* A domain's own servers: TLS where it is offered, whatever the certificate (RFC 7435): nothing says beforehand that a
  server has a right one, and refusing the others would send the same mail in plain text. Where the handshake fails the
  same server is tried without.

* REQUIRETLS (RFC 8689 §4.2.1): TLS with a certificate that is right for the server's name, or not at all, to whichever
  server outside. That the name came from DNS unforged is not known without DNSSEC or MTA-STS: the promise is as good as
  that answer. `TLS-Required: No` (§4.2.2) is its opposite, the sender's wish not to have mail held up by policies of
  MTA-STS or DANE. None of those is enforced here, and the relay's certificate protects a password and not the message:
  so it is honoured as it stands, and where REQUIRETLS stands beside it, that counts (§3).

MTA-STS and DANE come in here: a policy per destination that makes `verify` true and `plain_after_failure` false.
"""

from __future__ import annotations

import functools
import ssl
from dataclasses import dataclass

from services.runtime.tls import client_context
from services.runtime.values import Settings, WrongSetting
from services.smtp.client import Tls
from services.smtp_out.next_hop import LOCAL, RELAY, relay_address, route_of

SMTPS_PORT = 465  # RFC 8314 §3.3


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """`verify`: the certificate must be right. `plain_after_failure`: try again without TLS where it fails."""

    mode: Tls
    verify: bool = False
    plain_after_failure: bool = False
    password_in_plain: bool = False

    def context(self, ca_file: str = "") -> ssl.SSLContext | None:
        """The context for it; made once per kind, since loading the system's CAs takes 20 ms."""
        if self.mode is Tls.NONE:
            return None
        return _context(self.verify, ca_file if self.verify else "")


@functools.cache
def _context(verify: bool, ca_file: str) -> ssl.SSLContext:
    return client_context(verify=verify, ca_file=ca_file)


def check_relay(settings: Settings) -> None:
    """Raises WrongSetting where RELAY_HOST is no host, or the relay could never be verified with RELAY_CA_FILE."""
    try:
        relay_address(settings)
    except ValueError as error:
        raise WrongSetting(str(error)) from None
    policy = tls_policy(RELAY, settings)
    try:
        policy.context(settings.relay_ca_file)
    except OSError as error:  # ssl.SSLError is one
        why = "is no PEM file of certificates" if isinstance(error, ssl.SSLError) else error.strerror or str(error)
        raise WrongSetting(
            f"RELAY_CA_FILE={settings.relay_ca_file!r} (env/relay.env) cannot be used: {why}; it is a path as this "
            "container sees it, below /etc/mailstead/relay"
        ) from None


def tls_policy(destination: str, settings: Settings, *, required: bool = False) -> TlsPolicy:
    """The policy for `destination` (as `next_hop.destination_of` names it); `required`: the message has REQUIRETLS."""
    destination = route_of(destination)
    if destination == LOCAL:
        return TlsPolicy(Tls.NONE, password_in_plain=True)
    if required and (destination != RELAY or settings.relay_tls == "none"):
        return TlsPolicy(Tls.STARTTLS, verify=True)
    if destination != RELAY:
        return TlsPolicy(Tls.OPPORTUNISTIC, plain_after_failure=True)
    wanted = settings.relay_tls or ("tls" if relay_address(settings)[1] == SMTPS_PORT else "starttls")
    if wanted == "none":
        return TlsPolicy(Tls.NONE, password_in_plain=True)
    return TlsPolicy(Tls.IMPLICIT if wanted == "tls" else Tls.STARTTLS, verify=True)
