"""The DNS side of a key: the TXT record that verifiers look up (RFC 6376 §3.6, RFC 8463 §4).

Pure functions from a public key to names and texts; the room's service gives them to admin, the owner types them in.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from services.message.dkim_signature import SigningKey

# RFC 1035 §3.3: a character-string holds 255 octets. A 2048-bit key needs two; verifiers join them without a space
# (RFC 6376 §3.6.2.2).
STRING_OCTETS = 255


@dataclass(frozen=True, slots=True)
class Record:
    """One TXT record; `value` is the text as verifiers read it, in one piece."""

    name: str
    value: str

    @property
    def chunks(self) -> tuple[str, ...]:
        """`value` in strings of at most 255 octets."""
        return tuple(self.value[start : start + STRING_OCTETS] for start in range(0, len(self.value), STRING_OCTETS))

    @property
    def presentation(self) -> str:
        """The value as a zone file has it (RFC 1035 §5.1): `"v=DKIM1; k=rsa; p=..." "..."`.

        Nothing in it needs escaping: tags, base64, semicolons inside quotes.
        """
        return " ".join(f'"{chunk}"' for chunk in self.chunks)


def record(domain: str, selector: str, key: SigningKey) -> Record:
    """The record to publish for `key`."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.private.public_key()
    if key.algorithm == b"ed25519-sha256":
        kind, data = "ed25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw)  # RFC 8463 §4.2: the bare 32 bytes
    else:
        kind, data = "rsa", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Record(f"{selector}._domainkey.{domain}", f"v=DKIM1; k={kind}; p={base64.b64encode(data).decode('ascii')}")
