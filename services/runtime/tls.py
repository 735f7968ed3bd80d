"""TLS for listeners and clients: the contexts of a process's listeners, which follow the certificates acme installs.

Owns nothing on disk; reads `<certs_dir>/current/{fullchain,privkey}.pem`. A new certificate is served by handshakes
from then on; open connections live on.

Session tickets stay on: resuming spares a client with an RSA certificate 10 ms of a Raspberry Pi and everybody the
chain, and without tickets OpenSSL would keep the sessions of TLS 1.2 clients in memory instead. The key that opens them
belongs to a context, so it is changed by a fresh one every few hours (12 KiB, given back with its last connection):
who steals it from memory reads no TLS 1.2 session of the day before (RFC 9325 §3.4). With TLS 1.3 a resumed session
has keys of its own anyway, since OpenSSL resumes with a new key exchange alone (psk_dhe_ke).

No ALPN is offered and a client's is passed over: mail clients send none. What a browser
could be made to say to us by a confusion of protocols is cut off where HTTP is heard (`protocol/lines.py`).
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import time
from collections.abc import Callable

LOOK_SECONDS = 3  # "served within 10 s" with room for acme's own publication
# TLS 1.3's suites are all good; of 1.2 only forward secrecy with an AEAD (RFC 9325 §4.2). That is still everybody whose
# system is looked after: Windows 10, iOS 9, Android 5, macOS 10.11, OpenSSL 1.0.1, Java 8.
SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"
# RFC 9325 §3.4: change the key of tickets often. OpenSSL's tickets are good for two hours, so two of three still fit.
TICKET_KEY_SECONDS = 6 * 3600
# A TLS 1.2 client without tickets leaves its session in the context, 1 KiB, up to OpenSSL's 20,480: no room has 20 MiB
# to spare for who does that on purpose.
MOST_SESSIONS = 2000

# Asked at each handshake: the context of a listener changes with the key of its tickets.
ContextNow = Callable[[], ssl.SSLContext]


class NoCertificate(OSError):
    """acme has not installed a certificate yet."""


class ServerCertificates:
    """The context of every listener of one process.

    `context` is what a connection begins with. It holds the rules, the key of the session tickets and no certificate:
    at each handshake it hands over to a context with the current generation alone. Loading a certificate into the same
    context again would not do: OpenSSL keeps one per kind of key, and would go on offering an old ECDSA one beside a
    new RSA one.
    """

    def __init__(self, folder: str, *, clock: Callable[[], float] = time.monotonic, ask_clients: bool = False) -> None:
        """`folder` is the certs volume; nothing is read before `load`. `clock` counts the age of the tickets' key.

        `ask_clients`: clients are asked for a certificate, and may show any or none; raises OSError where that cannot
        be.
        """
        self._folder, self._clock, self._ask_clients = folder, clock, ask_clients
        _pass_over_odd_names()
        self._loaded = ""
        self._serving = _server_context()
        self._outer = self._fresh()

    def context(self) -> ssl.SSLContext:
        """What the next connection begins with: a `ContextNow`."""
        return self._outer

    def renew_ticket_key(self) -> bool:
        """Change the key of the session tickets where it is time, True then; open connections live on."""
        if self._clock() - self._made < TICKET_KEY_SECONDS and self._outer.session_stats()["number"] < MOST_SESSIONS:
            return False
        self._outer = self._fresh()
        return True

    def _fresh(self) -> ssl.SSLContext:
        self._made = self._clock()
        outer = _server_context()
        outer.sni_callback = self._hand_over
        if self._ask_clients:
            from services.runtime.client_certificates import ask  # loads ctypes

            ask(outer)
        return outer

    def load(self) -> bool:
        """Load the current generation; False when it is the one already loaded. Raises NoCertificate, ssl.SSLError."""
        try:
            generation = os.readlink(os.path.join(self._folder, "current"))
        except OSError:
            raise NoCertificate(f"no certificate in {self._folder} yet") from None
        if generation == self._loaded:
            return False
        folder = os.path.join(self._folder, generation)
        serving = _server_context()
        # A second ClientHello (RFC 8446 §4.1.4) asks the context handed over to. Without a callback of its own OpenSSL
        # would ask the first one again, which Python may have given back by then.
        serving.sni_callback = _keep
        try:
            serving.load_cert_chain(os.path.join(folder, "fullchain.pem"), os.path.join(folder, "privkey.pem"))
        except FileNotFoundError:
            raise NoCertificate(f"{folder} is incomplete") from None
        self._serving, self._loaded = serving, generation
        return True

    def _hand_over(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """OpenSSL asks this for every ClientHello, also for one that names no server (RFC 6066 §3).

        The name itself is not looked at: a phone at home asks for an address, another server for its MX.
        """
        connection.context = self._serving

    async def wait(self, seconds: float = 60) -> None:
        """Wait for the first certificate (acme starts beside us); raises NoCertificate after `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                self.load()
                return
            except (NoCertificate, ssl.SSLError) as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise NoCertificate(str(error)) from None
            await asyncio.sleep(0.2)

    async def follow(self) -> None:
        """Load each new generation until cancelled; a broken one is left, the old certificate goes on serving.

        Changes the key of the session tickets too.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.renew_ticket_key()
            try:
                self.load()
            except (OSError, ssl.SSLError):
                continue


def _pass_over_odd_names() -> None:
    """Keep a ClientHello whose server name is not ASCII off the log, where anybody could print tracebacks with it.

    Python decodes the name before it asks us, refuses the handshake (which the door records) and prints; the name is
    the object that it prints of.
    """
    before = sys.unraisablehook
    if getattr(before, "passes_over_odd_names", False):
        return

    def hook(what: sys.UnraisableHookArgs) -> None:
        if not (isinstance(what.exc_value, UnicodeDecodeError) and isinstance(what.object, bytes)):
            before(what)

    hook.passes_over_odd_names = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook


def _keep(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
    """Stay with this context."""


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # All of them are good, so the client chooses: a phone without AES instructions asks for ChaCha20 first, and saves
    # its battery with it.
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def client_context(*, verify: bool = True, ca_file: str = "") -> ssl.SSLContext:
    """A context for outgoing connections; `verify=False` is opportunistic TLS (RFC 7435), for delivery to an MX.

    `ca_file` is trusted instead of the system's CAs. Raises OSError (ssl.SSLError is one) where it cannot be loaded.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        # An owner's own CA, or the very certificate of his relay. Python 3.13 holds CAs to every letter of RFC 5280
        # (VERIFY_X509_STRICT), which what `openssl req -x509` makes by itself does not satisfy (no keyUsage): it is
        # trusted because the owner named it, and form adds nothing to that. Public CAs stay held to it.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # Opportunistic TLS with an old server beats plain text with it (RFC 7435 §3).
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
