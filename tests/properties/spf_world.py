"""Records and zones for SPF by hypothesis: mostly right ones, since random octets never get past the version."""

from typing import Any

from hypothesis import strategies as st

from services.protocol.dns_lookup import Asking, DnsError, NoAnswer, NoSuchName, Question, TemporaryFailure

NAMES = ["a.test", "b.test", "c.test", "d.e.test", "gone.test"]
FOURS = ["192.0.2.3", "192.0.2.4", "198.51.100.7", "0.0.0.0", "255.255.255.255"]
SIXES = ["2001:db8::3", "2001:db8::4", "2001:db8:1::7", "::"]
CLIENTS = ["192.0.2.3", "198.51.100.7", "2001:db8::3", "::ffff:192.0.2.3"]

Zone = dict[tuple[str, str], Any]

macros = st.builds(
    "%{{{}{}{}{}}}".format,
    st.sampled_from("slodiphvSLODIPHV"),
    st.sampled_from(["", "", "1", "2", "3", "127"]),
    st.sampled_from(["", "", "r", "R"]),
    st.sampled_from(["", "", "-", ".-+", "/_=,"]),
)
targets = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    st.builds("{}.{}".format, macros, st.sampled_from(NAMES)),
    macros,
    st.sampled_from(["x..test", "a" * 64 + ".test", "%%.test", "a.test."]),
)
cidrs = st.sampled_from(["", "", "", "/0", "/24", "/32", "//0", "//64", "/24//64", "/31//127"])
wrong = st.sampled_from(
    ["moo", "a:", "a:b", "ip4:1.2.3", "ip6:::1/129", "all:", "a/33", "redirect=", "exp=", "a:%{x}.test", "-", "ptr/8",
     "%{d}", "ip4:192.0.2.3,", "include", "exists:", "\tall", "mx/24/24", "a:1.2.3.4", "include:%{c}.test", "a:%"]
)  # fmt: skip
qualifiers = st.sampled_from(["", "", "+", "-", "~", "?"])
directives = st.builds(
    "{}{}".format,
    qualifiers,
    st.one_of(
        st.builds("a{}".format, cidrs),
        st.builds("mx{}".format, cidrs),
        st.builds("a:{}{}".format, targets, cidrs),
        st.builds("mx:{}{}".format, targets, cidrs),
        st.builds("include:{}".format, targets),
        st.builds("include:{}".format, targets),
        st.builds("exists:{}".format, targets),
        st.just("ptr"),
        st.builds("ptr:{}".format, targets),
        st.builds("ip4:{}{}".format, st.sampled_from(FOURS), st.sampled_from(["", "", "/0", "/24", "/31"])),
        st.builds("ip6:{}{}".format, st.sampled_from(SIXES), st.sampled_from(["", "", "/0", "/64", "/127"])),
    ),
)
ends = st.one_of(
    st.just(""),
    st.builds("{}all".format, qualifiers),
    st.builds("redirect={}".format, targets),
    st.builds("exp={} -all".format, targets),
)


def record(terms: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return st.builds(
        lambda terms, end: " ".join(["v=spf1", *terms, end]).rstrip(), st.lists(terms, max_size=most), ends
    )


def zones(records: st.SearchStrategy[str], *, failures: bool = True) -> st.SearchStrategy[Zone]:
    """A zone of `NAMES` but the last, of the clients' names, and nothing else. `failures`: of addresses and names too."""
    no_record = st.just(TemporaryFailure("away"))
    away = no_record if failures else st.nothing()
    made: dict[tuple[str, str], st.SearchStrategy[Any]] = {}
    for name in NAMES[:-1]:
        made[name, "TXT"] = st.one_of(
            st.lists(records, min_size=1, max_size=1).map(lambda texts: [text.encode() for text in texts]),
            st.lists(records, min_size=1, max_size=1).map(lambda texts: [text.encode() for text in texts]),
            st.just([b"v=spf1 a mx -all", b"other"]),
            no_record,
        )
        made[name, "A"] = st.one_of(st.lists(st.sampled_from(FOURS), min_size=1, max_size=3), st.none(), away)
        made[name, "AAAA"] = st.one_of(st.lists(st.sampled_from(SIXES), min_size=1, max_size=3), st.none(), away)
        made[name, "MX"] = st.one_of(
            st.lists(st.tuples(st.integers(0, 3), st.sampled_from([*NAMES, ""])), min_size=1, max_size=12),
            st.none(),
            away,
        )
    for client in ("192.0.2.3", "198.51.100.7", "2001:db8::3"):
        made[client, "PTR"] = st.one_of(
            st.lists(st.sampled_from([*NAMES, "mx.a.test"]), min_size=1, max_size=12), st.none(), away
        )
    made["mx.a.test", "A"] = st.just(["192.0.2.3"])
    return st.fixed_dictionaries(made).map(
        lambda zone: {key: value for key, value in zone.items() if value is not None}
    )


def play(asking: Asking[Any], zone: Zone, most: int) -> tuple[Any, list[Question], int]:
    """The decision, the questions, and how many of them were void; more than `most` questions fail."""
    names = {name for name, _ in zone}
    asked: list[Question] = []
    void = 0
    try:
        question = next(asking)
        while True:
            asked.append(question)
            assert len(asked) <= most, "more questions than the limits allow"
            found = zone.get((question.name.lower(), question.kind))
            if found is None:
                void += 1
                found = NoAnswer("x") if question.name.lower() in names else NoSuchName("x")
            question = asking.throw(found) if isinstance(found, DnsError) else asking.send(found)
    except StopIteration as end:
        return end.value, asked, void
