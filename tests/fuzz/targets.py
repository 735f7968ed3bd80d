"""What is fuzzed: a target for each reader that meets a stranger's octets, with the property it must keep."""

import ipaddress
import random
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from services.message import arc, authentication_results, dkim_verify, dsn, headers, mime, received_from, text, tokens
from services.message.dkim_record import key_record
from services.message.envelope import body_structure, envelope
from services.message.from_domain import from_domains
from services.message.reading import read
from services.policy import arc as arc_policy
from services.policy import dmarc, spf
from services.policy.dmarc_record import policy_record
from services.policy.sieve.check import check
from services.policy.sieve.mail import Mail
from services.policy.sieve.run import run
from services.policy.sieve.state import World
from services.protocol import reply as replies
from services.protocol import smtp_events as events
from services.protocol.dns_lookup import (
    Answer,
    Asking,
    DnsError,
    NoAnswer,
    NoSuchName,
    Question,
    Result,
    TemporaryFailure,
)
from services.protocol.proxy_header import MAX_V2, V2, ProxyFault, ProxyHeader, ProxyReader
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_session import SmtpSession
from services.protocol.smtp_states import ENDS_GROUP, State
from services.runtime.dns_wire import answers, read_answer, wire_name
from tests.fuzz.running import Target

LETTER = (
    b"Received: from mx.example.org (mx.example.org [192.0.2.7])\r\n\tby mail.test with ESMTPS id 1; Sun, 22 Nov 2026 10:00:00 +0000\r\n"
    b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=example.org; s=k1;\r\n h=from:to:subject; l=10; t=1; x=99999999999;\r\n"
    b" bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
    b"Authentication-Results: mail.test (ours) 1; spf=pass smtp.mailfrom=\"a b\"@example.org; dkim=fail (x) reason=\"y\" header.d=example.org\r\n"
    b"From: \"Ann, of x\" <ann@example.org>, =?utf-8?B?5Lit5paH?= <b@xn--fiq228c.test>\r\nTo: group: a@b.test, c@d.test;\r\n"
    b"Subject: =?gb2312?B?1tDOxA==?= hello\r\n =?utf-8?Q?=E4=B8=AD?=\r\nMessage-ID: <1@example.org>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=\"b b\"; charset*=utf-8''x\r\n\r\npreamble\r\n--b b\r\nContent-Type: text/html; charset=gbk\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\n<a href=3D\"http://192.0.2.1/x\">http://bank.test</a>=\r\n <!-- x -->&#20013;\r\n"
    b"--b b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbody\r\n--b b\r\n"
    b"Content-Disposition: attachment; filename=\"a.exe\"\r\nContent-Transfer-Encoding: base64\r\n\r\nTVqQAAMAAAA=\r\n--b b--\r\nafter\r\n"
)  # fmt: skip
SEALED = (
    b"ARC-Seal: i=1; cv=none; a=rsa-sha256; d=example.org; s=k1; t=1; b=AAAA\r\n"
    b"ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=k1; h=from:subject;\r\n"
    b" bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
    b"ARC-Authentication-Results: i=1; example.org; dmarc=pass header.from=example.org\r\n"
)
PLAIN = b"From: a@example.org\r\nSubject: x\r\n\r\nhello\r\n"


def met(asking: Asking[Result], octets: bytes, most: int) -> Result:
    """Drive a policy with answers made of `octets`; it must end within `most` questions."""
    chance = random.Random(octets)
    errors: list[DnsError] = [NoSuchName("x"), NoAnswer("x"), TemporaryFailure("x")]
    asked = 0
    try:
        question = next(asking)
        while True:
            asked += 1
            assert asked <= most, f"more than {most} questions"
            assert 0 < len(question.name) <= 255, question
            if chance.random() < 0.3:
                question = asking.throw(chance.choice(errors))
            else:
                question = asking.send(_answer(question, octets, chance))
    except StopIteration as end:
        result: Result = end.value
        return result


def _answer(question: Question, octets: bytes, chance: random.Random) -> Answer:
    names = ("", "a.example.org", "example.org", "x" * 70 + ".test", "\u4e2d.test", "a\0b.test")
    match question.kind:
        case "A":
            return ["192.0.2.7", "127.0.0.2"][: chance.randrange(3)]
        case "AAAA":
            return ["2001:db8::7"]
        case "MX":
            return [(10, chance.choice(names)) for _ in range(chance.randrange(12))]
        case "PTR":
            return [chance.choice(names) for _ in range(chance.randrange(12))]
        case "TXT":
            pieces = [octets, octets[::-1], octets[: len(octets) // 2]]
            return pieces[: 1 + chance.randrange(3)] if chance.random() < 0.3 else [octets]


_LINE_END = re.compile(rb"\r\n|\r|\n")

# --- SMTP


def smtp(octets: bytes) -> None:
    """The same octets give the same events and replies, however the network cuts them."""
    for lmtp in (False, True):
        whole = _conversation([octets], lmtp)
        chance = random.Random(octets)
        cuts = sorted(chance.randrange(len(octets) + 1) for _ in range(5))
        pieces = [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
        assert whole == _conversation(pieces, lmtp), "the answers depend on how the octets were cut"


# What may not follow in one read with the command before it, since its reply is not known to the peer.
_WAITED_FOR = (events.Hello, events.StartTls, events.Authenticate, events.Data)


def _conversation(pieces: Sequence[bytes], lmtp: bool) -> list[object]:
    session = SmtpSession(
        Offer("mail.test", 1000, lmtp=lmtp, starttls=True, chunking=True, dsn=True, limits=True, max_recipients=3)
    )
    session.greet()
    told: list[object] = []
    body = b""
    waited_for = False
    for piece in pieces:
        session.receive(piece)
        while (event := session.next_event()) is not None:
            if isinstance(event, events.Chunk):
                assert b"\n" not in event.data.replace(b"\r\n", b"") or event.data[:1] == b"\n"
                body += event.data
                continue
            if isinstance(event, events.Spoilt):
                continue
            refused = isinstance(event, events.Answer) and event.verb in ENDS_GROUP
            waited_for = waited_for or refused or isinstance(event, _WAITED_FOR)
            if isinstance(event, events.EndOfBody) and event.fault is None:
                assert b"\r" not in body.replace(b"\r\n", b"") and b"\n" not in body.replace(b"\r\n", b"")
            told.append((event, body))
            body = b"" if isinstance(event, events.EndOfBody) else body
            session.send(_reply(event))
            if session.state is State.TLS:
                session.secure()
        if session.state is State.CLOSED:
            break
    # RFC 2920: what came behind a command that ends a group is a fault or none by when it came.
    return [] if waited_for else told


def _reply(event: events.Event) -> replies.Reply:
    if isinstance(event, events.Answer):
        return event.reply
    if isinstance(event, events.EndOfBody) and event.fault is not None:
        return event.fault
    if isinstance(event, events.Data):
        return replies.START_BODY
    return replies.SENDER_OK


def proxy(octets: bytes) -> None:
    """However it is cut, a PROXY header is the same one or the same fault, names an IP address or none, and is bounded."""
    chance = random.Random(octets)
    cuts = sorted(chance.randrange(len(octets) + 1) for _ in range(4))
    pieces = [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    whole = _proxied([octets])
    assert whole == _proxied(pieces), "the header depends on how the octets were cut"
    assert whole is not None or len(octets) < MAX_V2 + 16, "more is read than a header may have"


def _proxied(pieces: Sequence[bytes]) -> ProxyHeader | str | None:
    reader = ProxyReader()
    try:
        for piece in pieces:
            found = reader.feed(piece)
            if found is not None:
                assert not found.address or ipaddress.ip_address(found.address)
                return found
    except ProxyFault:
        return "fault"
    return None


# --- a message's header and parts


def header(octets: bytes) -> None:
    """Fields lie in order and apart, and what is taken out is taken out whole and alone."""
    head = octets[: headers.header_length(octets)]
    position = 0
    for field in headers.fields(head):
        assert position <= field.start < field.end <= len(head)
        assert b"\n" not in field.name and b":" not in field.name
        position = field.end
    assert headers.without(head, []) == head
    left = headers.without(head, [b"Subject"])
    assert not headers.find_all(left, b"Subject") or len(left) < len(head)
    headers.loops(head)
    authors = from_domains(head)
    assert all(isinstance(domain, str) for domain in authors.domains)
    text.header_text(head[:2000])
    received_from.origin(head, lambda address: address == "192.0.2.7", "mx.example.org")
    dsn.field_value(octets, b"message-id")


def parts(octets: bytes) -> None:
    """MIME: offsets lie in the message, and packed facts come back as they were."""
    message = mime.parse(octets)
    assert mime.pack(mime.unpack(mime.pack(message, octets)), octets) == mime.pack(message, octets)
    envelope(mime.fields_of(octets[: headers.header_length(octets)]))
    structure = body_structure(message.root)
    assert b"\0" not in structure


def junk_tokens(octets: bytes) -> None:
    """The junk filter's reading: bounded."""
    found = tokens.tokens(read(octets))
    assert len(found) <= 5000 and all(0 < len(token) <= 400 for token in found)


# --- who is sending


def dkim(octets: bytes) -> None:
    """Verifying never passes what nobody signed."""
    head = octets[: headers.header_length(octets)]
    body = octets[len(head) + 2 :]
    found = dkim_verify.signatures(head)
    hashes = dkim_verify.hash_body([body[:7], body[7:]], dkim_verify.wanted_bodies(found))
    results = met(dkim_verify.verify(found, head, hashes, now=1_800_000_000.0), octets, 12)
    assert len(results) == len(found)
    assert not any(result.result == "pass" for result in results)
    key_record(octets)


def arc_chain(octets: bytes) -> None:
    """A chain that nobody sealed is none, or broken; whoever is named in it vouches for nothing."""
    head = octets[: headers.header_length(octets)]
    chain = arc.read_chain(head)
    hashes = dkim_verify.hash_body([octets[len(head) + 2 :]], chain.wanted_bodies())
    result = met(arc.validate(chain, head, hashes, now=1_800_000_000.0), octets, 110)
    assert result.result in ("none", "fail") and (result.problem or result.result == "none")
    failed = dmarc.DmarcResult("fail", "reject", "example.org", "example.org", "v=DMARC1; p=reject")
    assert not arc_policy.vouched(result, {"example.org"}, failed)


def spf_record(octets: bytes) -> None:
    """RFC 7208 §4.6.4: never more questions than the limits allow, whatever the records say."""
    for ip in ("192.0.2.7", "2001:db8::7"):
        result = met(spf.check(ip, "mx.example.org", "ann@example.org", receiver="mail.test"), octets, 260)
        assert result.result in ("pass", "fail", "softfail", "neutral", "none", "temperror", "permerror")
        assert result.explanation.isprintable()


def spf_sender(octets: bytes) -> None:
    """HELO and sender of any form."""
    name, _, sender = octets.decode("utf-8", "replace").partition("\n")
    zone = b"v=spf1 exists:%{l1r-}.%{d2}.%{h}.%{S} a:%{o} ptr -all exp=%{d}.x"
    met(spf.check("192.0.2.7", name, sender, receiver="mail.test"), zone, 260)


def dns_answer(octets: bytes) -> None:
    """A resolver's message: values of the kind that was asked for, an absence, or no answer."""
    for kind, name in (("TXT", "a.test"), ("MX", "a.test"), ("A", "b.a.test"), ("PTR", "1.2.0.192.in-addr.arpa")):
        question = wire_name(name) + _KINDS[kind] + b"\0\x01"
        for answer in (octets, b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0" + question + octets):
            if not answers(answer, 0x1234, question):
                continue
            try:
                found = read_answer(answer, kind, name)  # type: ignore[arg-type]
            except TemporaryFailure:
                continue
            assert bool(found.values) != bool(found.missing)
            for value in found.values:
                assert isinstance(value, bytes if kind == "TXT" else tuple if kind == "MX" else str)


_KINDS = {"TXT": b"\0\x10", "MX": b"\0\x0f", "A": b"\0\x01", "PTR": b"\0\x0c"}


def dmarc_record(octets: bytes) -> None:
    """The walk ends within RFC 9989's queries."""
    policy_record([octets])
    none = spf.SpfResult("none", "example.org", "mfrom")
    met(dmarc.check("a.b.c.d.e.f.g.h.i.j.example.org", none, ()), octets, 24)


def dmarc_author(octets: bytes) -> None:
    """A From of any form."""
    authors = from_domains(b"From: " + octets + b"\r\n")
    none = spf.SpfResult("none", "example.org", "mfrom")
    met(dmarc.check_authors(authors, none, ()), b"v=DMARC1; p=reject", 400)


def results_field(octets: bytes) -> None:
    """Nothing that claims our name stays, and what is taken out is a field; what is written is read as written."""
    authentication_results.parse(octets)
    octets = _LINE_END.sub(b"\r\n", octets)  # SMTP lets no other in
    head = octets[: headers.header_length(octets)]
    left = authentication_results.without_ours(head, "mail.test")
    assert len(left) <= len(head)
    assert authentication_results.without_ours(left, "mail.test") == left
    for field in headers.find_all(left, b"Authentication-Results"):
        parsed = authentication_results.parse(field.value)
        assert parsed is None or parsed.authserv_id.lower().rstrip(".") != "mail.test", field
    hostile = octets.decode("utf-8", "replace")
    method = authentication_results.MethodResult("spf", "pass", hostile[:200], (("smtp.mailfrom", hostile[:300]),))
    written = authentication_results.field("mail.test", [method])
    assert written.endswith(b"\r\n") and b"\n" not in written.replace(b"\r\n ", b"").replace(b"\r\n\t", b"")[:-2]
    again = authentication_results.parse(written.partition(b":")[2].strip())
    assert again is not None and [each.result for each in again.results] == ["pass"]


# --- rules


def sieve_script(octets: bytes) -> None:
    """A script is well or has a problem with a place; what runs ends with at least one action."""
    script = check(octets)
    assert all(problem.line >= 1 and problem.text for problem in script.problems)
    mail = Mail(
        LETTER[: headers.header_length(LETTER)], len(LETTER), "ann@example.org", "me+tag@mail.test", lambda: LETTER
    )
    outcome = run(script, mail, World(datetime(2026, 11, 22, 10, tzinfo=UTC)))
    assert outcome.actions and len(outcome.actions) <= 40


_SCRIPT = check(
    b'require ["fileinto","variables","body","date","relational","comparator-i;ascii-numeric","subaddress","envelope",'
    b'"imap4flags"];\r\n'
    b'if header :matches ["subject","from"] "*a*b*?" { set :lower :upperfirst "x" "${1}${2}"; fileinto "${x}"; }\r\n'
    b'if body :text :contains "hello" { addflag "\\\\Seen"; }\r\nif address :detail :is "to" "x" { keep; }\r\n'
    b'if date :value "ge" "date" "year" "2000" { keep; }\r\nif header :value "gt" :comparator "i;ascii-numeric" "subject" "3" { stop; }\r\n'
)  # fmt: skip


def sieve_message(octets: bytes) -> None:
    """A message of any form under a script that looks at all of it."""
    assert not _SCRIPT.problems
    mail = Mail(octets[: headers.header_length(octets)], len(octets), "", "me@mail.test", lambda: octets)
    assert run(_SCRIPT, mail, World(datetime(2026, 11, 22, 10, tzinfo=UTC))).actions


# --- the list

_DIALOGUE = (
    b"EHLO client.test\r\n", b"MAIL FROM:<a@example.org> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=x+2By\r\nRCPT TO:<b@mail.test> "
    b"NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@mail.test\r\nDATA\r\n", b"Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n",
    b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<\"a b\"@mail.test>\r\nBDAT 5\r\nabc\r\nBDAT 0 LAST\r\nRSET\r\nNOOP\r\nVRFY x\r\n",
    b"EHLO x\r\nMAIL FROM:<a@b.test> SMTPUTF8\r\nRCPT TO:<\xe4\xb8\xad@mail.test>\r\nBDAT 3 LAST\r\n\xff\r\nMAIL FROM:<@x,@y:a@b>\r\n",
)  # fmt: skip


def _target(read_it: Callable[[bytes], None], *seeds: bytes) -> Target:
    return Target(read_it.__name__.replace("_", "-"), read_it, seeds)


TARGETS = {
    target.name: target
    for target in (
        _target(smtp, *_DIALOGUE, b"".join(_DIALOGUE), b"LHLO x\r\n" + _DIALOGUE[1] + _DIALOGUE[2]),
        _target(
            proxy,
            b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 25\r\nEHLO x\r\n",
            b"PROXY TCP6 2001:db8::9 ::1 4711 25\r\n",
            b"PROXY UNKNOWN\r\n",
            V2 + b"\x21\x11\x00\x0c\xcb\x00\x71\x09\x0a\x00\x00\x01\x12\x67\x00\x19EHLO x\r\n",
            V2 + b"\x20\x00\x00\x00",
            V2 + b"\x21\x11\x00\x13\xcb\x00\x71\x09\x0a\x00\x00\x01\x12\x67\x00\x19\x04\x00\x04noop",
        ),
        _target(header, LETTER, PLAIN),
        _target(parts, LETTER, PLAIN),
        _target(junk_tokens, LETTER, PLAIN),
        _target(dkim, LETTER, b"v=DKIM1; k=rsa; h=sha256; t=s:y; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK==", PLAIN),
        _target(arc_chain, SEALED + PLAIN, SEALED.replace(b"i=1", b"i=2").replace(b"none", b"pass") + SEALED + PLAIN),
        _target(
            spf_record,
            b"v=spf1 a mx ptr:%{d2} ip4:192.0.2.0/24 ip6:2001:db8::/32 include:example.org exists:%{ir}.%{v}.%{l} ?all",
            b"v=spf1 a:%{h}/24//64 redirect=%{d} exp=e.%{d}",
            b"v=spf1 include:%{o} include:%{d3} -all",
            b"%{c} %{R} %{t} %% %_ %-",
        ),
        _target(spf_sender, b"mx.example.org\nann@example.org", b"[192.0.2.7]\n", b'x\n"a@b"@c.d.test'),
        _target(
            dns_answer,
            b"\xc0\x0c\0\x10\0\x01\0\0\x01\x2c\0\x0c\x0bv=spf1 -all",
            b"\xc0\x0c\0\x0f\0\x01\0\0\x01\x2c\0\x09\0\x0a\x02mx\xc0\x0c",
            b"\xc0\x0c\0\x05\0\x01\0\0\x01\x2c\0\x04\x01b\xc0\x0c\x01b\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01",
            b"\xc0\x0c\0\x0c\0\x01\0\0\x01\x2c\0\x08\x01a\x04test\0",
        ),
        _target(
            dmarc_record,
            b"v=DMARC1; p=reject; sp=quarantine; np=none; adkim=s; aspf=r; t=y; psd=n; rua=mailto:a@b.test",
        ),
        _target(dmarc_author, b"ann@example.org", b'"x" <a@b.test>, c@d.test', b"g: a@b.test;, <c@d.test> (x)"),
        _target(results_field, LETTER, b"mail.test 1; dkim=pass (good) header.d=x.test policy.iprev=192.0.2.7; none"),
        _target(
            sieve_script,
            b'require ["fileinto", "vacation", "variables", "copy"];\nif anyof (header :contains ["to","cc"] "x", not size :over 10K,'
            b' allof (true, exists "date")) { fileinto :copy "A.B"; stop; } elsif address :domain :matches "from" "*.org" { discard; }'
            b'\nelse { redirect "a@b.test"; }\nvacation :days 7 :subject "x" text:\nhello\n..\n.\n;\n/* c */ # d\n',
            b'require ["variables","imap4flags","envelope","body","date","relational","subaddress","mailbox","copy","reject"];\n'
            b'set :length "n" "${0}";\nif envelope :user "to" "me" { reject "no"; }\nif currentdate :value "ge" "hour" "8" {'
            b' setflag ["\\\\Flagged","x"]; fileinto :create :flags "\\\\Seen" "${n}"; }\n',
        ),
        _target(sieve_message, LETTER, PLAIN),
    )
}
