"""MAIL's and RCPT's parameters of RFC 3461 and RFC 8689, in and out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.protocol.smtp_client import (
    Action,
    Greeting,
    Message,
    Receive,
    RecipientResult,
    Result,
    Send,
    SendBody,
    deliver,
)
from services.protocol.smtp_offer import Offer
from services.protocol.smtp_parameters import (
    NOTIFY,
    MailParameters,
    RcptParameters,
    ascii_orcpt,
    mail_parameters,
    original_recipient,
    rcpt_parameters,
)
from services.protocol.smtp_paths import Refused
from services.protocol.smtp_remote import RemoteReply

ON_MAIL = frozenset({"RET", "ENVID", "REQUIRETLS", "SIZE"})
ON_RCPT = frozenset({"NOTIFY", "ORCPT"})


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("RET=FULL", MailParameters(ret="FULL")),
        ("ret=hdrs ENVID=QQ314159", MailParameters(ret="HDRS", envid="QQ314159")),
        ("ENVID=a+2Bb+3Dc+20d", MailParameters(envid="a+2Bb+3Dc+20d")),
        ("ENVID=" + "x" * 100, MailParameters(envid="x" * 100)),
        ("REQUIRETLS", MailParameters(requiretls=True)),
    ],
)
def test_mail(text: str, parameters: MailParameters) -> None:
    assert mail_parameters(text, ON_MAIL) == parameters


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("NOTIFY=NEVER", RcptParameters(notify="NEVER")),
        ("NOTIFY=delay,SUCCESS", RcptParameters(notify="SUCCESS,DELAY")),
        ("NOTIFY=FAILURE,FAILURE", RcptParameters(notify="FAILURE")),
        ("ORCPT=rfc822;a+2Bb@c.example", RcptParameters(orcpt="rfc822;a+2Bb@c.example")),
        ("ORCPT=x400;/C+3D", RcptParameters(orcpt="x400;/C+3D")),
        ("ORCPT=utf-8;b\\x{FC}cher@c.example", RcptParameters(orcpt="utf-8;b\\x{FC}cher@c.example")),
        ("ORCPT=UTF-8;bücher@c.example", RcptParameters(orcpt="UTF-8;bücher@c.example")),
        ("ORCPT=rfc822;" + "x" * 493, RcptParameters(orcpt="rfc822;" + "x" * 493)),
    ],
)
def test_rcpt(text: str, parameters: RcptParameters) -> None:
    assert rcpt_parameters(text, ON_RCPT, True) == parameters


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("RET", 501), ("RET=BODY", 501), ("RET=FULL RET=HDRS", 501), ("ENVID", 501), ("ENVID=a+b", 501),
        ("ENVID=a+0D+0AX", 501), ("ENVID=+C3+BC", 501), ("ENVID=ü", 501), ("ENVID=" + "x" * 101, 501),
        ("REQUIRETLS=yes", 501), ("NOTIFY=NEVER", 555), ("BODY=8BITMIME", 555),
    ],
)  # fmt: skip
def test_bad_mail(text: str, code: int) -> None:
    with pytest.raises(Refused) as refused:
        mail_parameters(text, ON_MAIL)
    assert refused.value.reply.code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("NOTIFY", 501), ("NOTIFY=", 501), ("NOTIFY=NEVER,SUCCESS", 501), ("NOTIFY=SUCCESS,,DELAY", 501),
        ("NOTIFY=ALWAYS", 501), ("ORCPT", 501), ("ORCPT=a@b", 501), ("ORCPT=;a@b", 501), ("ORCPT=rfc822;", 501),
        ("ORCPT=rfc822;a+0Ab", 501), ("ORCPT=rfc822;ü@b", 501), ("ORCPT=utf-8;", 501), ("ORCPT=utf-8;\\x{A}", 501),
        ("ORCPT=utf-8;\\x{D800}", 501), ("ORCPT=utf-8;\\x{FFFFFF}", 501), ("ORCPT=utf-8;\\x41", 501),
        ("ORCPT=rfc822;" + "x" * 494, 501), ("RET=FULL", 555), ("FOO", 555),
    ],
)  # fmt: skip
def test_bad_rcpt(text: str, code: int) -> None:
    with pytest.raises(Refused) as refused:
        rcpt_parameters(text, ON_RCPT, True)
    assert refused.value.reply.code == code


def test_raw_utf8_needs_smtputf8() -> None:
    with pytest.raises(Refused) as refused:
        rcpt_parameters("ORCPT=utf-8;ü@b", ON_RCPT, False)
    assert refused.value.reply.code == 553


def test_what_a_report_writes_of_an_original_recipient() -> None:
    assert original_recipient("rfc822;a+2Bb@c.example") == ("rfc822", "a+b@c.example")
    assert original_recipient("utf-8;b\\x{FC}cher@c") == original_recipient("utf-8;bücher@c") == ("utf-8", "bücher@c")
    assert ascii_orcpt("utf-8;bücher@c") == "utf-8;b\\x{FC}cher@c"


@given(st.text(max_size=80))
def test_no_text_raises_anything_else(text: str) -> None:
    for read in (
        lambda: mail_parameters(text, ON_MAIL),
        lambda: rcpt_parameters(text, ON_RCPT, True),
        lambda: rcpt_parameters("ORCPT=utf-8;" + text, ON_RCPT, True),
        lambda: rcpt_parameters("NOTIFY=" + text, ON_RCPT, True),
    ):
        try:
            taken = read()
        except Refused as refused:
            assert refused.reply.code >= 500
        else:
            if isinstance(taken, RcptParameters) and taken.orcpt:
                assert original_recipient(taken.orcpt)[1].isprintable()


@given(st.lists(st.sampled_from(NOTIFY), min_size=1), st.booleans())
def test_notify_is_kept_in_one_order(words: list[str], lower: bool) -> None:
    text = "NOTIFY=" + ",".join(words)
    taken = rcpt_parameters(text.lower() if lower else text, ON_RCPT, False).notify
    assert taken.split(",") == [word for word in NOTIFY if word in words]


# --- offered


def offered(offer: Offer, *, secured: bool) -> list[str]:
    return offer.reply(secured=secured, authenticated=False).text.split("\n")


def test_requiretls_is_offered_under_tls_only() -> None:
    """RFC 8689 §2; between rooms as well, where the network is theirs alone."""
    port25 = Offer("m", 1000, requiretls=True)
    assert "REQUIRETLS" not in offered(port25, secured=False)
    assert "REQUIRETLS" in offered(port25, secured=True)
    assert "REQUIRETLS" not in port25.mail_parameters(secured=False)
    assert "REQUIRETLS" in port25.mail_parameters(secured=True)
    inside = Offer("m", 1000, requiretls=True, auth=("PLAIN",), auth_requires_tls=False)
    assert "REQUIRETLS" in offered(inside, secured=False)
    assert "REQUIRETLS" in inside.mail_parameters(secured=False)
    login_in_the_open = Offer("m", 1000, requiretls=True, auth_requires_tls=False)
    assert "REQUIRETLS" not in offered(login_in_the_open, secured=False)


def test_the_limit_of_recipients_is_said() -> None:
    """RFC 9422 §4.2."""
    assert "LIMITS RCPTMAX=150" in offered(Offer("m", 1000, limits=True, max_recipients=150), secured=False)


# --- sent


def played(message: Message, greeting: Greeting, answers: dict[str, RemoteReply] | None = None) -> tuple[str, Result]:
    """What the client said, and the results, with a server that says 250 (354 to DATA)."""
    steps = deliver(message, greeting)
    said: list[str] = []
    waiting: list[RemoteReply] = []
    answer: RemoteReply | None = None
    try:
        while True:
            action: Action = steps.send(answer)
            answer = None
            if isinstance(action, Send):
                lines = action.data.decode().split("\r\n")[:-1]
                said += lines
                waiting += [(answers or {}).get(line, RemoteReply(354 if line == "DATA" else 250)) for line in lines]
            elif isinstance(action, SendBody):
                waiting.append(RemoteReply(250))
            elif isinstance(action, Receive):
                answer = waiting.pop(0)
    except StopIteration as done:
        return "\n".join(said), done.value


WHOLE = Message(
    "a@b", ("c@d", "e@f"), ret="HDRS", envid="QQ+20x",
    dsn={"c@d": RcptParameters("NEVER"), "e@f": RcptParameters("FAILURE,DELAY", "utf-8;ü@f")},
)  # fmt: skip


def test_dsn_is_handed_on_where_it_is_offered() -> None:
    said, _ = played(WHOLE, Greeting({"PIPELINING": "", "DSN": "", "SMTPUTF8": ""}))
    assert said.split("\n") == [
        "MAIL FROM:<a@b> RET=HDRS ENVID=QQ+20x",
        "RCPT TO:<c@d> NOTIFY=NEVER",
        "RCPT TO:<e@f> NOTIFY=FAILURE,DELAY ORCPT=utf-8;ü@f",
        "DATA",
    ]
    assert "ORCPT=utf-8;\\x{FC}@f" in played(WHOLE, Greeting({"DSN": ""}))[0]
    assert "=" not in played(WHOLE, Greeting({}))[0]


def test_requiretls_goes_to_who_offers_it_or_nowhere() -> None:
    message = Message("a@b", ("c@d",), requiretls=True)
    said, results = played(message, Greeting({}))
    assert (said, results[0].reply.enhanced, results[0].ours) == ("", "5.7.30", True)
    said, results = played(message, Greeting({"REQUIRETLS": ""}))
    assert said.startswith("MAIL FROM:<a@b> REQUIRETLS\n") and results[0].delivered


def test_a_server_s_limit_of_recipients_is_heeded() -> None:
    """RFC 9422 §4.2: the rest goes with the next transaction, as after a 452."""
    said, results = played(Message("a@b", ("1@x", "2@x", "3@x")), Greeting({"LIMITS": "MAILMAX=9 RCPTMAX=2"}))
    assert said.count("RCPT") == 2
    left: RecipientResult = results[2]
    assert (left.address, left.reply.code, left.ours) == ("3@x", 452, True)


@pytest.mark.parametrize("words", ["", "RCPTMAX", "RCPTMAX=0", "RCPTMAX=-1", "RCPTMAX=1e3", "RCPTMAX=1000000", "X=1"])
def test_limits_that_say_nothing(words: str) -> None:
    assert Greeting({"LIMITS": words}).limit("RCPTMAX") is None
