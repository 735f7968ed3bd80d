"""TLS for listeners and clients: one server context per process that follows the certificates acme installs.

Owns nothing on disk; reads `<certs_dir>/current/{fullchain,privkey}.pem`. A new certificate is served by handshakes
from then on; open connections live on.
"""

from __future__ import annotations

import asyncio
import os
import ssl

LOOK_SECONDS = 3  # "served within 10 s" with room for acme's own publication
# TLS 1.3's suites are all good; of 1.2 only forward secrecy with an AEAD (RFC 9325 §4.2).
SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"


class NoCertificate(OSError):
    """acme has not installed a certificate yet."""


class ServerCertificates:
    """The context of every listener of one process.

    `context` is what listeners are opened with. It holds the rules and no certificate: at each handshake it hands over
    to a context with the current generation alone. Loading a certificate into the same context again would not do:
    OpenSSL keeps one per kind of key, and would go on offering an old ECDSA one beside a new RSA one.
    """

    def __init__(self, folder: str) -> None:
        """`folder` is the certs volume; nothing is read before `load`."""
        self._folder = folder
        self._loaded = ""
        self.context = _server_context()
        self._serving = self.context
        self.context.sni_callback = self._hand_over

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
        try:
            serving.load_cert_chain(os.path.join(folder, "fullchain.pem"), os.path.join(folder, "privkey.pem"))
        except FileNotFoundError:
            raise NoCertificate(f"{folder} is incomplete") from None
        self._serving, self._loaded = serving, generation
        return True

    def _hand_over(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """OpenSSL asks this for every ClientHello, also for one that names no server (RFC 6066 §3)."""
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
        """Load each new generation until cancelled; a broken one is left, the old certificate goes on serving."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.load()
            except (OSError, ssl.SSLError):
                continue


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def client_context(*, verify: bool = True, ca_file: str = "") -> ssl.SSLContext:
    """A context for outgoing connections; `verify=False` is opportunistic TLS (RFC 7435), for delivery to an MX."""
    context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        # Opportunistic TLS with an old server beats plain text with it (RFC 7435 §3).
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
