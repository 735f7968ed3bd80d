"""SMTP's commands with arguments: MAIL, RCPT and the hellos (RFC 5321 §4.1.1).

The grammar of paths is in `smtp_paths.py`, that of parameters in `smtp_parameters.py`; their names can be had from here
too. Called by the server session with a line that is already valid UTF-8 without controls. Raises `Refused` for the
peer's faults.
"""

from __future__ import annotations

import re

from services.protocol import reply as replies
from services.protocol.smtp_parameters import (
    NO_MAIL_PARAMETERS,
    NO_RCPT_PARAMETERS,
    MailParameters,
    RcptParameters,
    decode_xtext,
    encode_xtext,
    mail_parameters,
    rcpt_parameters,
)
from services.protocol.smtp_paths import (
    NULL,
    NULL_PATH,
    POSTMASTER_PATH,
    Path,
    Refused,
    parse_address,
    quote_local,
    read_path,
)

__all__ = [
    "NO_RCPT_PARAMETERS",
    "NULL",
    "MailParameters",
    "Path",
    "RcptParameters",
    "Refused",
    "decode_xtext",
    "encode_xtext",
    "parse_address",
    "parse_hello",
    "parse_mail",
    "parse_rcpt",
    "quote_local",
]

_HELLO = re.compile(r"[!-~]{1,255}\Z")


def parse_mail(argument: str, offered: frozenset[str]) -> tuple[Path, MailParameters]:
    """Read what follows `MAIL`: `FROM:<path> parameters`. Raises Refused.

    `offered` names the parameters that EHLO's answer allows.
    """
    text = _after_keyword(argument, "FROM:", "MAIL FROM:<address>")
    match = NULL_PATH.match(text)
    if match:
        path = NULL
    else:
        path, match = read_path(text, replies.bad_sender)
    rest = text[match.end() :]
    parameters = mail_parameters(rest, offered) if rest else NO_MAIL_PARAMETERS
    if not path.ascii and not parameters.smtputf8:
        raise Refused(replies.NEEDS_SMTPUTF8)
    return path, parameters


def parse_rcpt(argument: str, smtputf8: bool, offered: frozenset[str] = frozenset()) -> tuple[Path, RcptParameters]:
    """Read what follows `RCPT`: `TO:<path> parameters`; `smtputf8` as MAIL said, `offered` as EHLO. Raises Refused."""
    text = _after_keyword(argument, "TO:", "RCPT TO:<address>")
    match = POSTMASTER_PATH.match(text)
    if match:
        path = Path(match["local"], "")
    else:
        path, match = read_path(text, replies.bad_recipient)
    rest = text[match.end() :]
    parameters = rcpt_parameters(rest, offered, smtputf8) if rest else NO_RCPT_PARAMETERS
    if not path.ascii and not smtputf8:
        raise Refused(replies.NEEDS_SMTPUTF8)
    return path, parameters


def parse_hello(argument: str) -> str:
    """Read HELO's, EHLO's or LHLO's name; raises Refused.

    RFC 5321 §4.1.1.1 wants a domain or a literal. Printers, phones and scanners send bare names and worse, and what
    they say proves nothing: anything printable in one word passes here, policy may judge it.
    """
    if not _HELLO.match(argument):
        raise Refused(replies.syntax("say EHLO and your host name"))
    return argument


def _after_keyword(argument: str, keyword: str, example: str) -> str:
    if argument[: len(keyword)].upper() != keyword:
        raise Refused(replies.syntax(f"say {example}"))
    # RFC 5321 §3.3 permits no space after the colon; scanners and scripts send one, and every large server takes it.
    return argument[len(keyword) :].lstrip(" ")
