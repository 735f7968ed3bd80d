"""A configuration profile for Apple's mail programs: pure, from an account's names to the bytes of a property list.

Apple, "Configuration Profile Reference", payload com.apple.mail.managed. Not signed (the device says "unverified"), and
without a password: the device asks for it. The identifiers follow from the address, so that a second profile replaces
the first.
"""

from __future__ import annotations

import hashlib
from html import escape  # the same for text; xml.sax would load a parser


def profile(address: str, hostname: str, *, imap_port: int, submission_port: int) -> bytes:
    """The profile for one account; both connections use TLS from the first byte."""
    mail = {
        "EmailAccountDescription": address,
        "EmailAccountType": "EmailTypeIMAP",
        "EmailAddress": address,
        "IncomingMailServerAuthentication": "EmailAuthPassword",
        "IncomingMailServerHostName": hostname,
        "IncomingMailServerPortNumber": imap_port,
        "IncomingMailServerUseSSL": True,
        "IncomingMailServerUsername": address,
        "OutgoingMailServerAuthentication": "EmailAuthPassword",
        "OutgoingMailServerHostName": hostname,
        "OutgoingMailServerPortNumber": submission_port,
        "OutgoingMailServerUseSSL": True,
        "OutgoingMailServerUsername": address,
        "OutgoingPasswordSameAsIncomingPassword": True,
        "PayloadType": "com.apple.mail.managed",
        "PayloadVersion": 1,
        **_identity(f"mail.{hostname}", address),
    }
    whole = {
        "PayloadContent": [mail],
        "PayloadDisplayName": f"{address} ({hostname})",
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        **_identity(f"profile.{hostname}", address),
    }
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n'
        f'<plist version="1.0">{_xml(whole)}</plist>\n'
    ).encode()


def _identity(kind: str, address: str) -> dict[str, object]:
    digest = hashlib.sha256(f"{kind} {address}".encode()).hexdigest()
    # RFC 9562 §5.8: version 8, whose other bits are the maker's to choose.
    uuid = f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}"
    return {"PayloadIdentifier": f"mailstead.{kind}.{uuid}", "PayloadUUID": uuid.upper()}


def _xml(value: object) -> str:
    # `plistlib` would load an XML parser into the room for the sake of writing this.
    if isinstance(value, bool):
        return "<true/>" if value else "<false/>"
    if isinstance(value, int):
        return f"<integer>{value}</integer>"
    if isinstance(value, list):
        return f"<array>{''.join(map(_xml, value))}</array>"
    if isinstance(value, dict):
        return "<dict>" + "".join(f"<key>{escape(name)}</key>{_xml(each)}" for name, each in value.items()) + "</dict>"
    return f"<string>{escape(str(value))}</string>"
