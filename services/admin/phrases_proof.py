"""Sentences about signatures, From and ARC: why what should prove a sender does not. Part of phrases.py.

A test takes them from their source and looks each up.
"""

from __future__ import annotations

from services.admin.text import mark

PROOF_PHRASES = (
    # --- message/tag_list.py, dkim_record.py
    mark("the tags are not name=value with semicolons between them"),
    mark("the tag {name}= is there twice"),
    mark("the tag {name}= has a control character"),
    mark("the key record is broken: {error}"),
    mark("p= is no base64"),
    mark("p= is no RSA key"),
    mark("p= is no Ed25519 key"),
    mark("the key is not for mail (s={service})"),
    mark("the key is revoked (empty p=)"),
    mark("the key is of a kind that nobody knows (k={kind})"),
    mark("the RSA key has {bits} bits; below {least} anybody can make signatures"),
    mark("the RSA key of {bits} bits is too large to be computed with"),
    # --- message/dkim_verify.py
    mark("not looked at: only the first {count} signatures are"),
    mark("the signature cannot be read: {error}"),
    mark("the signature has no {tag}="),
    mark("the signature's v= is not 1"),
    mark("the signature is no base64"),
    mark("the seal has h= or bh=, which it must not"),
    mark("the signature does not cover From"),
    mark("the signature covers an ARC-Seal, which it must not"),
    mark("the signature's key is not in DNS (q=)"),
    mark("the signature ends before it begins (x= and t=)"),
    mark("the signature's {tag}= is no domain name"),
    mark("signed with rsa-sha1, which anybody with money can forge"),
    mark("the signature's algorithm is not known here"),
    mark("the signature's canonical form (c=) is not known here"),
    mark("the signature's {tag}= is no number"),
    mark("the signature's i= cannot be read"),
    mark("the signature's i= has no domain"),
    mark("the signature's i= is outside of its d="),
    mark("there is more than one From, and a signature vouches for one"),
    mark("the signature has expired"),
    mark("the signature is of the future"),
    mark("the signature covers more body than there is (l=)"),
    mark("the body was changed after it was signed"),
    mark("there is no key at the signature's selector"),
    mark("DNS gave no answer about the signature's key"),
    mark("the key is for {kind}, the signature is made with {other}"),
    mark("the key may not be used with {digest} (h=)"),
    mark("the signature's i= is below its d=, which the key forbids (t=s)"),
    mark("the header was changed after it was signed, or the key is another"),
    mark("the signature covers only the beginning of the body (l=)"),
    # --- message/from_domain.py, policy/dmarc.py
    mark("there is no From"),
    mark("there is more than one From"),
    mark("a line of the header that is no field looks like From"),
    mark("From has addresses of several domains"),
    mark("From is too long to be read"),
    mark("From cannot be read as an address"),
    mark("From has a domain that is none"),
    mark("From has no address"),
    mark("DNS gave no answer about the policy of From"),
    mark("the DMARC record has a policy that is none"),
    # --- message/arc.py, policy/arc.py
    mark("an ARC field has no number of a set"),
    mark("the ARC set {number} has a field twice"),
    mark("the ARC set {number} is missing"),
    mark("the ARC set {number} has not all of its fields"),
    mark("the ARC set {number} says that the chain was not valid there"),
    mark("the ARC message signature {number} does not hold: {problem}"),
    mark("the ARC seal {number} does not hold: {problem}"),
    mark("{sealer}, whose word counts here, says that {method} passed for {domain} there"),
)
