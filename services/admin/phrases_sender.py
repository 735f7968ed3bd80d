"""Sentences about who sends: SPF, the peer's name, lists of addresses, and DNS's own troubles. Part of phrases.py."""

from __future__ import annotations

from services.admin.text import mark

SENDER_PHRASES = (
    # --- policy/spf.py
    mark("{domain} has no SPF record"),
    mark("{domain} is not a domain that can have an SPF record"),
    mark("the SPF record of {domain} could not be asked for: {error}"),
    mark("{kind} of {name} could not be asked for: {error}"),
    mark("{domain} has {count} SPF records, and only one is allowed"),
    mark("{domain}, to which it redirects, has no SPF record"),
    mark("{domain}, which it includes, has no SPF record"),
    mark("redirect= names no domain"),
    mark("{term} names no domain"),
    mark("{domain} has more than {count} MX records"),
    mark("more than {count} terms of its SPF records name what does not exist: {error}"),
    mark("more than {count} terms of its SPF records ask DNS"),
    # --- policy/spf_record.py, spf_macro.py
    mark("the SPF record of {domain} is wrong: {error}"),
    mark("it is longer than {count} octets"),
    mark("it has characters outside ASCII"),
    mark("{name}= stands there twice"),
    mark("{term} is no mechanism of SPF"),
    mark("{term} is wrong: {error}"),
    mark("nothing may follow all"),
    mark("a domain name is missing"),
    mark("after its name only a colon and a domain, or a length such as /24 may stand"),
    mark("an address stands where a domain belongs: that would be ip4"),
    mark("an address, and a length of 0 to {bits} after it, belong there"),
    mark("{address} is no IPv4 address"),
    mark("{address} is no IPv6 address"),
    mark("/{length} is more than /{bits}"),
    mark("{text} is no macro and no visible ASCII character"),
    mark("{text} is no macro that may stand there"),
    mark("{text} asks for no part of its value"),
    mark("{text} is not a domain name with a dot in it"),
    # --- policy/peer.py
    mark("{address} has no name in DNS (PTR)"),
    mark("the name of {address} could not be asked for: {error}"),
    mark("{address} is {name} in DNS, a name that does not lead back to it"),
    mark("it says {helo}, which is ours"),
    mark("it says {helo}, which is not its address in brackets"),
    mark("it says {helo}, which is no full name"),
    mark("it says {helo}, which has no address in DNS"),
    mark("{text} is no address"),
    # --- policy/dnsbl.py
    mark("{address} is listed by {name} ({codes}): {words}"),
    mark("{address} is listed by {name} ({codes})"),
    mark("{address} is recommended by {name} ({codes}): {words}"),
    mark("{address} is recommended by {name} ({codes})"),
    mark("{name} lists every address: it has ended; take it out of DNSBL_LISTS"),
    mark(
        "{name} answers {code}, as no list does: a resolver on the way makes answers up, or the list has ended; take "
        "it out of DNSBL_LISTS"
    ),
    mark("{name} is no list that its owner knows ({code}): mend the name in DNSBL_LISTS"),
    mark(
        "{name} refuses questions that come through public resolvers ({code}): leave DNS_FORWARD_TO empty, or get a "
        "key of your own from the list"
    ),
    mark(
        "{name} refuses to answer ({code}), mostly for too many questions: get a key of your own from the list, or "
        "take it out of DNSBL_LISTS"
    ),
    # --- runtime/dns_wire.py, dns_resolver.py
    mark("{kind} of {name}: no answer within {count} seconds"),
    mark("{kind} of {name}: the resolver could not find out"),
    mark("{kind} of {name}: the resolver refuses"),
    mark("{kind} of {name}: the resolver answers with the error {code}"),
    mark("{kind} of {name}: an answer that cannot be read: {error}"),
    mark("{name} does not exist"),
    mark("{name} has no {kind} record"),
    mark("{name} is not a name that DNS can hold"),
)
