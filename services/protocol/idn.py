"""Internationalised domain names: the form DNS compares (A-labels) and the form people read (U-labels).

IDNA 2008 (RFC 5890, RFC 5891) by the package `idna`, which is loaded at the first name outside ASCII: few ever come,
and it costs half a MiB.
"""

from __future__ import annotations


def a_labels(domain: str) -> str:
    """`domain` in lower case as A-labels (RFC 5890 §2.3.2.1); raises ValueError where a label is not IDNA 2008.

    Case, dots and width are mapped first as browsers do it (UTS #46), so that what a person types is found.
    """
    if domain.isascii():
        return domain.lower()
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise ValueError(str(error)) from None


def u_labels(domain: str) -> str:
    """A domain as its people write it; itself where it has no A-label, or one that is not IDNA 2008."""
    if "xn--" not in domain:
        return domain
    import idna

    try:
        return idna.decode(domain)
    except (idna.IDNAError, UnicodeError):
        return domain
