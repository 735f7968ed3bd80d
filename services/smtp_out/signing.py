"""Asks the dkim room for signatures: the header goes there, of the body only its hash.

Called by `submission` when a message is complete. A domain that has no key sends unsigned; a dkim room that does not
answer is no reason to send unsigned: the client is told to try again (451), for a receiver that has learned to expect
signatures would take the message for forged.
"""

from __future__ import annotations

from services.runtime.internal_http import Client, PeerRefused, PeerUnavailable
from services.runtime.process import Context

# An RSA signature takes the dkim room 1 ms; what takes longer than this is a room that hangs.
SECONDS = 15.0


class NotSigned(Exception):
    """No signature came. `permanent`: the message itself cannot be signed, and never will be."""

    def __init__(self, why: str, *, permanent: bool = False) -> None:
        super().__init__(why)
        self.permanent = permanent


class Signer:
    """One per process."""

    def __init__(self, context: Context, client: Client | None = None) -> None:
        """`client` asks dkim (tests pass their own)."""
        settings = context.settings
        self._client = client or Client(context.room, context.secrets, "dkim", settings.dkim_url, timeout=SECONDS)
        # Some relays refuse or break two signatures; who sends directly has both verified.
        self._signatures = settings.relay_signatures if settings.relay_host else "both"

    async def sign(self, domain: str, header: bytes, body_hash: str, trace: str) -> bytes:
        """The DKIM-Signature fields for `header` (with its empty line), b"" where `domain` has no key. Raises
        NotSigned."""
        headers = {
            "Mailstead-Body-Hash": body_hash,
            "Mailstead-Signatures": self._signatures,
            "Mailstead-Trace": trace,
        }
        try:
            answer = await self._client.request(
                "POST", "/v1/sign", body=header, query={"domain": domain}, headers=headers
            )
        except PeerUnavailable as error:
            raise NotSigned(str(error)) from None
        except PeerRefused as error:
            if error.response.status == 404:
                return b""
            raise NotSigned(str(error), permanent=error.response.status == 400) from None
        return answer.body

    def close(self) -> None:
        """Close the kept connections."""
        self._client.close()
