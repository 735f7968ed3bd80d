"""The server session without IO: order, groups, limits, and that nothing makes it fail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol import reply as replies
from services.protocol import smtp_events as events
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_session import AFTER, SmtpSession, State
from tests.dialogues.runner import play_all_ways
from tests.smtpowner import OFFER, Owner, greeted

CHUNKING = Offer("mail.test", 1000, starttls=True, chunking=True)
PREPARED: dict[State, bytes] = {
    State.CONNECTED: b"",
    State.READY: b"EHLO client\r\n",
    State.MAIL: b"EHLO client\r\n MAIL FROM:<a@b>\r\n",
    State.RCPT: b"EHLO client\r\n MAIL FROM:<a@b>\r\n RCPT TO:<c@d>\r\n",
    State.CHUNKS: b"EHLO client\r\n MAIL FROM:<a@b>\r\n RCPT TO:<c@d>\r\n BDAT 0\r\n",
}
ARGUMENTS = {
    "HELO": " x",
    "EHLO": " x",
    "LHLO": " x",
    "MAIL": " FROM:<a@b>",
    "RCPT": " TO:<a@b>",
    "VRFY": " a",
    "AUTH": " X",
    "BDAT": " 0",
    "XCLIENT": " ADDR=203.0.113.9",
    "XFORWARD": " ADDR=203.0.113.9",
}


@pytest.mark.parametrize("verb", sorted(AFTER))
@pytest.mark.parametrize("state", PREPARED)
def test_each_command_in_each_state(verb: str, state: State) -> None:
    owner = greeted(CHUNKING, hello=False)
    owner.session.trusted = True
    for line in PREPARED[state].split(b"\r\n "):
        owner.feed(line.strip() + b"\r\n" if line else b"")
    assert owner.session.state is state
    owner.said = b""
    owner.feed(f"{verb}{ARGUMENTS.get(verb, '')}\r\n".encode())
    (code,) = owner.codes
    allowed = AFTER[verb].get(state)
    if verb == "LHLO":
        assert (code, owner.session.state) == (500, state)
    elif verb in ("EXPN", "AUTH"):
        assert code in (502, 503)
        assert owner.session.state is state
    elif allowed is None:
        assert code == (554 if verb in ("DATA", "BDAT") and state is State.MAIL else 503)
        assert owner.session.state is state
    elif verb == "BDAT":
        assert (code, owner.session.state) == (250, State.CHUNKS)
    else:
        assert code < 400
        assert owner.session.state is allowed


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", 500), (b"FOO", 500), (b"EHLOx", 500), (b"EHLO", 501), (b"HELO", 501), (b"DATA now", 501),
        (b"RSET x", 501), (b"QUIT x", 501), (b"STARTTLS x", 501), (b"VRFY", 501), (b"HELP me", 214), (b"NOOP x y", 250),
        (b"noop", 250), (b"NOOP \t ", 250), (b" NOOP", 500), (b"NO\0OP", 500), (b"NOOP \x01", 500), (b"NOOP \xff", 500),
        (b"NOOP \x7f", 500), ("NOOP ü".encode(), 250), (b"N" * 3000, 500), (b"NOOP " + b"x" * 2041, 250),
        (b"NOOP " + b"x" * 2042, 500), (b"TURN", 502), (b"ETRN x", 502), (b"AUTH PLAIN", 502),
    ],
)  # fmt: skip
def test_lines_and_their_codes(line: bytes, code: int) -> None:
    owner = greeted()
    if line == b"DATA now":
        owner.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\n")
        owner.said = b""
    owner.feed(line + b"\r\n")
    assert owner.codes == [code]


TRANSACTION = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"


def test_a_group_is_answered_in_order() -> None:
    """RFC 2920 §3.2."""
    owner = greeted()
    owner.refuse[events.Rcpt] = replies.mailbox_unavailable("c@d")
    owner.feed(TRANSACTION + b"RSET\r\nMAIL FROM:<>\r\nDATA\r\n")
    assert owner.codes == [250, 550, 250, 250, 554]


@pytest.mark.parametrize("verb", [b"EHLO x", b"HELO x", b"STARTTLS", b"DATA", b"AUTH PLAIN AGEAYg==", b"AUTH LOGIN"])
@pytest.mark.parametrize("later", [False, True])
def test_nothing_may_follow_what_ends_a_group(verb: bytes, later: bool) -> None:
    """CVE-2011-0411: what follows STARTTLS in clear must not be read as if TLS had carried it."""
    owner = greeted(Offer("mail.test", 1000, starttls=True, auth=("PLAIN", "LOGIN"), auth_requires_tls=False))
    if verb == b"DATA":
        owner.feed(TRANSACTION)
        owner.said = b""
    if later:  # while the reply is being thought about
        owner.session.receive(verb + b"\r\n")
        event = owner.session.next_event()
        owner.session.receive(b"NOOP\r\n")
        assert event is not None
        owner.said += owner.session.send(owner.yes(event))
    else:
        owner.feed(verb + b"\r\nNOOP\r\n")
    assert owner.codes == [503]
    assert owner.session.state is State.CLOSED
    assert owner.feed(b"NOOP\r\n") == b""


def test_input_before_the_greeting_is_refused() -> None:
    owner = Owner(SmtpSession(OFFER))
    owner.feed(b"EHLO x\r\nMAIL FROM:<a@b>\r\n")
    assert (owner.codes, owner.session.state) == ([554], State.CLOSED)


def test_where_bdat_is_not_offered_its_data_are_no_commands() -> None:
    owner = greeted()
    owner.feed(TRANSACTION + b"BDAT 6 LAST\r\nNOOP\r\n")
    assert (owner.codes, owner.session.state) == ([250, 250, 502], State.CLOSED)


def test_starttls_forgets_what_was_said() -> None:
    """RFC 3207 §4.2."""
    owner = greeted()
    owner.feed(b"STARTTLS\r\n")
    assert owner.session.state is State.TLS
    assert owner.session.next_event() is None
    owner.session.secure()
    owner.feed(b"MAIL FROM:<a@b>\r\n")
    owner.feed(b"EHLO client\r\n")
    assert owner.codes == [220, 503, 250]
    assert b"STARTTLS" not in owner.said
    owner.feed(b"STARTTLS\r\n")
    assert owner.codes[-1] == 503


def test_the_first_words_under_tls_are_kept() -> None:
    """They may arrive in the same turn of the loop as the end of the handshake, before its owner says so."""
    owner = greeted()
    owner.feed(b"STARTTLS\r\n")
    assert not owner.session.unread
    owner.feed(b"EHLO client\r\n")
    assert owner.session.unread
    owner.session.secure()
    owner.feed(b"")
    assert owner.codes == [220, 250]


def test_starttls_where_it_is_not_offered() -> None:
    owner = greeted(Offer("mail.test", 1000))
    owner.feed(b"STARTTLS\r\n")
    assert owner.codes == [502]


def test_a_refused_command_changes_nothing() -> None:
    owner = greeted()
    owner.refuse[events.Mail] = replies.INSUFFICIENT_STORAGE
    owner.feed(TRANSACTION)
    assert owner.codes == [452, 503]
    owner = greeted()
    owner.refuse[events.Data] = replies.INSUFFICIENT_STORAGE
    owner.feed(TRANSACTION + b"DATA\r\n")
    assert owner.session.state is State.RCPT


def test_a_message() -> None:
    owner = greeted()
    owner.feed(TRANSACTION + b"DATA\r\n")
    owner.feed(b"Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n")
    assert owner.codes == [250, 250, 354, 250, 221]
    assert owner.body == b"Subject: x\r\n\r\n.dot\r\n"
    assert owner.seen[-2] == events.EndOfBody(len(owner.body), None)
    assert owner.session.state is State.CLOSED


def test_declared_and_actual_size() -> None:
    owner = greeted()
    owner.feed(b"MAIL FROM:<a@b> SIZE=1001\r\nMAIL FROM:<a@b> SIZE=1000\r\nRCPT TO:<c@d>\r\nDATA\r\n")
    owner.feed(b"x" * 999 + b"\r\n.\r\nNOOP\r\n")
    assert owner.codes == [552, 250, 250, 354, 552, 250]
    assert [type(event) for event in owner.seen][-3:] == [events.Spoilt, events.EndOfBody, events.Answer]
    owner.feed(TRANSACTION + b"DATA\r\n")
    owner.feed(b"x" * 998 + b"\r\n.\r\n")
    assert owner.codes[-1] == 250


def test_a_body_without_end_is_cut_off() -> None:
    owner = greeted()
    owner.feed(TRANSACTION + b"DATA\r\n")
    for _ in range(2000):
        owner.feed(b"x" * 998 + b"\r\n")
    assert (owner.codes[-1], owner.session.state) == (552, State.CLOSED)


def test_a_line_of_any_length_passes() -> None:
    """RFC 5322 says 998 octets; mail with more is real, and refusing it loses it."""
    owner = greeted(Offer("mail.test", 10_000_000))
    owner.feed(TRANSACTION + b"DATA\r\n")
    for _ in range(100):
        owner.feed(b"x" * 50_000)
    owner.feed(b"\r\n.\r\n")
    assert owner.codes[-1] == 250
    assert len(owner.body) == 5_000_002


@pytest.mark.parametrize("end", [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\r\n"])
def test_a_false_end_of_data_closes(end: bytes) -> None:
    def play(pieces: list[bytes]) -> tuple[list[int], State, int]:
        owner = greeted()
        owner.feed(TRANSACTION + b"DATA\r\n")
        for piece in pieces:
            owner.feed(piece)
        return owner.codes, owner.session.state, len([e for e in owner.seen if isinstance(e, events.Mail)])

    played = play_all_ways(b"text" + end + TRANSACTION + b"DATA\r\nsmuggled\r\n.\r\n", play)
    assert played == ([250, 250, 354, 550], State.CLOSED, 1)


def test_bare_ends_in_a_body_refuse_it_and_the_session_goes_on() -> None:
    def play(pieces: list[bytes]) -> list[int]:
        owner = greeted()
        owner.feed(TRANSACTION + b"DATA\r\n")
        for piece in pieces:
            owner.feed(piece)
        return owner.codes

    assert play_all_ways(b"a\nb\r\n.\r\nNOOP\r\n", play) == [250, 250, 354, 550, 250]


def test_bare_ends_in_commands() -> None:
    def play(pieces: list[bytes]) -> tuple[list[int], State]:
        owner = greeted()
        for piece in pieces:
            owner.feed(piece)
        return owner.codes, owner.session.state

    assert play_all_ways(b"MAIL FROM:<a\r@b>\r\nNOOP\r\n", play) == ([500, 250], State.READY)
    assert play_all_ways(b"NOOP\nMAIL FROM:<a@b>\r\nNOOP\r\n", play) == ([500, 250], State.READY)
    assert play_all_ways(b"NOOP\nNOOP\nNOOP\r\n", play) == ([500, 500], State.CLOSED)


def test_recipients_are_limited() -> None:
    """RFC 5321 §4.5.3.1.10: 452, and the client sends the rest in another message."""
    owner = greeted(Offer("mail.test", 1000, max_recipients=2))
    owner.refuse[events.Rcpt] = replies.mailbox_unavailable("x@y")
    owner.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\n")
    owner.refuse.clear()
    owner.feed(b"RCPT TO:<a@b>\r\nRCPT TO:<a@b>\r\nRCPT TO:<a@b>\r\n")
    assert owner.codes == [250, 550, 250, 250, 452]
    owner.feed(b"RSET\r\n" + TRANSACTION)
    assert owner.codes[-1] == 250


def test_errors_are_limited() -> None:
    owner = greeted(Offer("mail.test", 1000, max_errors=3))
    owner.feed(b"A\r\nB\r\nNOOP\r\nC\r\nNOOP\r\n")
    assert owner.codes == [500, 500, 250, 500, 421]
    assert owner.session.last_words == replies.TOO_MANY_ERRORS
    assert owner.session.state is State.CLOSED


def test_idle_commands_are_limited_until_a_message() -> None:
    owner = greeted(Offer("mail.test", 1000, max_idle_commands=4))  # EHLO is one
    owner.feed(b"NOOP\r\nRSET\r\n" + TRANSACTION + b"DATA\r\n")
    owner.feed(b".\r\n")
    owner.feed(b"NOOP\r\nVRFY x\r\nHELP\r\nRSET\r\nNOOP\r\n")
    assert owner.codes == [250, 250, 250, 250, 354, 250, 250, 252, 214, 250, 421]


def test_what_is_offered() -> None:
    def offered(offer: Offer, **state: bool) -> list[str]:
        return offer.reply(secured=state.get("s", False), authenticated=state.get("a", False)).text.split("\n")[1:]

    always = ["PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
    submission = Offer("m", 1000, starttls=True, auth=("PLAIN", "LOGIN"))
    assert offered(submission) == [*always, "STARTTLS", "HELP"]
    assert offered(submission, s=True) == [*always, "AUTH PLAIN LOGIN", "HELP"]
    assert offered(submission, s=True, a=True) == [*always, "HELP"]
    internal = Offer("m", 1000, auth=("PLAIN",), auth_requires_tls=False, extensions=("XMAILSTEAD 1",))
    assert offered(internal) == [*always, "AUTH PLAIN", "XMAILSTEAD 1", "HELP"]


SUBMISSION = Offer("mail.test", 1000, starttls=True, auth=("PLAIN", "LOGIN"), require_auth=True)


def test_mail_needs_tls_and_log_in() -> None:
    owner = greeted(SUBMISSION)
    owner.feed(b"MAIL FROM:<a@b>\r\n")
    owner.feed(b"AUTH PLAIN AGEAYg==\r\n")
    assert owner.codes == [530, 538]
    assert b"STARTTLS" in owner.said
    owner = greeted(SUBMISSION, secured=True)
    owner.feed(b"MAIL FROM:<a@b>\r\n")
    owner.feed(b"AUTH PLAIN AGEAYg==\r\n")
    owner.feed(b"MAIL FROM:<a@b>\r\n")
    assert owner.codes == [530, 235, 250]
    owner.feed(b"RSET\r\n")
    owner.feed(b"AUTH PLAIN AGEAYg==\r\n")
    assert owner.codes[-1] == 503


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        ([b"AUTH PLAIN AGEAYg=="], [235]),
        ([b"auth plain AGEAYg=="], [235]),
        ([b"AUTH PLAIN", b"AGEAYg=="], [334, 235]),
        ([b"AUTH LOGIN", b"YQ==", b"Yg=="], [334, 334, 235]),
        ([b"AUTH LOGIN YQ==", b"Yg=="], [334, 235]),
        ([b"AUTH PLAIN ="], [501]),
        ([b"AUTH PLAIN AGEA!g=="], [501]),
        ([b"AUTH PLAIN", b"*", b"NOOP"], [334, 501, 250]),
        ([b"AUTH LOGIN", b"YQ==", b"*", b"NOOP"], [334, 334, 501, 250]),
        ([b"AUTH LOGIN", b"!", b"NOOP"], [334, 501, 250]),
        ([b"AUTH LOGIN", b"", b"NOOP"], [334, 334, 501]),
        ([b"AUTH LOGIN", b"a" * 12287, b"NOOP"], [334, 500, 250]),
        ([b"AUTH LOGIN", b"a\rb", b"NOOP"], [334, 500, 250]),
        ([b"AUTH PLAIN " + b"A" * 12280], [500]),
        ([b"AUTH CRAM-MD5"], [504]),
        ([b"AUTH"], [501]),
    ],
)
def test_log_in(lines: list[bytes], codes: list[int]) -> None:
    owner = greeted(SUBMISSION, secured=True)
    for line in lines:
        owner.feed(line + b"\r\n")
    assert owner.codes == codes
    seen = [event for event in owner.seen if isinstance(event, events.Authenticate)]
    assert bool(seen) is (codes[-1] == 235)
    for event in seen:
        assert (event.credentials.login, event.credentials.password) == ("a", "b")


def test_a_failed_log_in_leaves_the_session_where_it_was() -> None:
    owner = greeted(SUBMISSION, secured=True)
    owner.refuse[events.Authenticate] = replies.LOGIN_FAILED
    owner.feed(b"AUTH PLAIN AGEAYg==\r\n")
    owner.feed(b"MAIL FROM:<a@b>\r\n")
    assert owner.codes == [535, 530]


LMTP = Offer("mail.test", 1000, lmtp=True)


def test_lmtp() -> None:
    """RFC 2033: LHLO instead of EHLO, and a reply for each recipient."""
    owner = greeted(LMTP)
    owner.feed(b"EHLO x\r\nHELO x\r\nLHLO x\r\n")
    assert owner.codes == [500, 500, 250]
    assert owner.session.greet().startswith(b"220 mail.test LMTP")
    owner = greeted(LMTP)
    owner.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n")
    owner.session.receive(b"x\r\n.\r\n")
    assert isinstance(owner.session.next_event(), events.Chunk)
    assert isinstance(owner.session.next_event(), events.EndOfBody)
    said = owner.session.send(replies.OK, replies.mailbox_unavailable("e@f"))
    assert [line[:3] for line in said.splitlines()] == [b"250", b"550"]


def test_an_owner_that_answers_out_of_turn_is_told_so() -> None:
    owner = greeted()
    with pytest.raises(RuntimeError):
        owner.session.send(replies.OK)
    owner.session.receive(b"NOOP\r\n")
    owner.session.next_event()
    with pytest.raises(RuntimeError):
        owner.session.send()


WORDS = [
    b"EHLO x\r\n", b"HELO x\r\n", b"LHLO x\r\n", b"MAIL FROM:<a@b>", b" SIZE=5", b"RCPT TO:<c@d>", b"\r\n", b"DATA\r\n",
    b".\r\n", b"\n", b"\r", b"QUIT\r\n", b"RSET\r\n", b"STARTTLS\r\n", b"AUTH PLAIN ", b"AUTH LOGIN\r\n", b"YQ==\r\n",
    b"*\r\n", b"\0", b"\xff", b"VRFY a\r\n", b"text\r\n", b"..", b"BDAT 4\r\n", b"BDAT 9 LAST\r\n", b" ", b"NOOP\r\n", b"x" * 2050,
]  # fmt: skip
STREAMS = st.lists(st.sampled_from(WORDS) | st.binary(max_size=8), max_size=25)


@given(STREAMS, st.booleans(), st.booleans(), st.booleans())
def test_no_bytes_make_it_raise(pieces: list[bytes], lmtp: bool, secured: bool, chunking: bool) -> None:
    offer = Offer(
        "mail.test", 50, lmtp=lmtp, starttls=True, auth=("PLAIN", "LOGIN"), auth_requires_tls=False, chunking=chunking
    )
    owner = greeted(offer, hello=False, secured=secured)
    for piece in pieces:
        owner.feed(piece)
        if owner.session.state is State.TLS:
            owner.session.secure()
    replied = [event for event in owner.seen if not isinstance(event, events.Spoilt | events.Bdat)]
    assert len(owner.codes) - (owner.session.last_words is not None) <= len(replied)
    if owner.session.state is not State.CLOSED:
        assert len(owner.codes) == len(replied)


@given(st.lists(st.sampled_from([b".", b"..", b"a", b"", b".a", b"\0" * 3, b"x" * 99]), max_size=9), st.integers(1, 40))
def test_bodies_come_out_as_they_went_in(lines: list[bytes], step: int) -> None:
    body = b"".join(line + b"\r\n" for line in lines)
    wire = b"".join((b"." + line if line.startswith(b".") else line) + b"\r\n" for line in lines) + b".\r\nNOOP\r\n"
    owner = greeted()
    owner.feed(TRANSACTION + b"DATA\r\n")
    for start in range(0, len(wire), step):
        owner.feed(wire[start : start + step])
    assert owner.body == body
    assert owner.codes == [250, 250, 354, 250, 250]
