"""SPF with whatever strangers publish and say: it always ends, within its limits, with a result."""

from hypothesis import given, settings
from hypothesis import strategies as st
from spf_world import CLIENTS, Zone, directives, play, record, wrong, zones

from services.policy.spf import MAX_MX, MAX_PTR, MAX_SHOWN, MAX_TERMS, SpfResult, check
from services.policy.spf_macro import Facts, MacroError, domain_spec, expand, macro_string, target_name
from services.policy.spf_record import Record, RecordError, parse, select
from services.protocol.dns_lookup import Kind, Question

# Each term one question and, of mx, ten more; the first record, the peer's name and its names, one explanation.
MOST = MAX_TERMS * (1 + MAX_MX) + 1 + 1 + MAX_PTR + 1
RESULTS = {"pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"}

anything = st.one_of(st.text(max_size=80), st.text("aA0%{}.:/=-+,_~?rd \t\n", max_size=80))


def holds(found: SpfResult) -> None:
    assert found.result in RESULTS
    assert len(found.explanation) <= MAX_SHOWN and found.explanation.isascii() and found.explanation.isprintable()
    assert found.problem.isprintable() and len(found.problem) < 600
    assert bool(found.problem) == (found.result in ("none", "temperror", "permerror"))


@settings(max_examples=400, deadline=None)
@given(
    zones(record(directives | directives | directives | wrong, 14)),
    st.sampled_from(CLIENTS),
    st.sampled_from(["bob@a.test", "", "b.b+x-y@d.e.test"]),
)
def test_any_zone(zone: Zone, ip: str, sender: str) -> None:
    found, _, _ = play(check(ip, "c.test", sender, receiver="r"), zone, MOST)
    holds(found)


@settings(max_examples=300, deadline=None)
@given(ip=anything, helo=anything, sender=anything, answer=st.binary(max_size=200), tail=anything)
def test_any_client_and_any_octets(ip: str, helo: str, sender: str, answer: bytes, tail: str) -> None:
    """Every TXT question gets the same answer: a record that includes and explains itself, or octets."""
    for client in (ip, "192.0.2.3"):
        for texts in ([answer], [b"v=spf1 " + answer], [b"v=spf1 " + tail.encode("utf-8", "surrogatepass")],
                      [b"v=spf1 exp=%{l}.%{h}.%{o} exists:%{s}.%{H} include:%{d} redirect=%{o}"]):  # fmt: skip
            asking = check(client, helo, sender, receiver="r")
            try:
                question = next(asking)
                for _ in range(MOST + 1):
                    question = asking.send(texts if question.kind == "TXT" else [])
                raise AssertionError("it does not end")
            except StopIteration as end:
                holds(end.value)


@settings(max_examples=500, deadline=None)
@given(anything, st.lists(directives | wrong, max_size=20))
def test_any_record(text: str, terms: list[str]) -> None:
    for made in (text, f"v=spf1 {text}", " ".join(["v=spf1", *terms, text])):
        octets = made.encode("utf-8", "surrogatepass")
        assert len(select([octets])) <= 1
        try:
            assert isinstance(parse(octets), Record)
        except RecordError as error:
            assert str(error).isprintable() and len(str(error)) < 400


@settings(max_examples=500, deadline=None)
@given(anything, anything, anything, st.sampled_from(["192.0.2.3", "2001:db8::3"]))
def test_any_macro(text: str, local: str, helo: str, ip: str) -> None:
    import ipaddress

    facts = Facts(ipaddress.ip_address(ip), local, "a.test", helo, "b.test")
    for explanation in (False, True):
        try:
            parts = macro_string(text, explanation=explanation)
        except MacroError as error:
            assert str(error).isprintable()
            continue
        assert len(expand(parts, facts)) <= len(text) * max(200, 13 * (len(local) + len(helo) + 20))
    try:
        assert len(target_name(domain_spec(text), facts)) <= max(253, len(local) * 13 + len(helo) * 13 + 200)
    except MacroError:
        pass


def test_the_worst_that_can_be_published_stays_within_the_limit() -> None:
    """Ten mx of ten names each, and a peer with many names, of which none leads back."""
    kinds: list[Kind] = []
    asking = check("192.0.2.3", "h.test", "bob@a.test", receiver="r")
    question = next(asking)
    try:
        while True:
            kinds.append(question.kind)
            question = asking.send(
                {
                    "TXT": [b"v=spf1 " + b"mx:%{p}.test " * 10 + b"-all exp=%{p}.test"],
                    "MX": [(n, f"mx{n}.test") for n in range(10)],
                    "PTR": [f"p{n}.test" for n in range(100)],
                    "A": ["198.51.100.1"],
                }[question.kind]
            )  # type: ignore[arg-type]
            assert isinstance(question, Question)
    except StopIteration as end:
        assert end.value.result == "fail"
    assert len(kinds) == MOST
