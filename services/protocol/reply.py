"""SMTP replies, each named once.

A `Reply` is what the server says to one command: a code (RFC 5321 §4.2), an enhanced code (RFC 3463, "" where RFC 2034
§4 wants none: greetings, EHLO, 354 and 334) and a text. Hooks and the session hand these values around; `encode`
makes the bytes. Texts are written for the person who reads a bounce or a log: what was wrong, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass

# RFC 5321 §4.5.3.1.5: a reply line is at most 512 octets with code and CRLF. 480 leaves room for "250-2.0.0 ".
MAX_TEXT = 480


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `text` may hold several lines separated by "\\n"; control characters never reach the peer."""

    code: int
    enhanced: str
    text: str

    @property
    def positive(self) -> bool:
        """True for 2xx and 3xx: the command was taken."""
        return self.code < 400

    @property
    def temporary(self) -> bool:
        """True for 4xx: the peer may try again."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """True for 5xx."""
        return self.code >= 500

    def __str__(self) -> str:
        """The reply as a record shows it: without line breaks."""
        middle = f" {self.enhanced} " if self.enhanced else " "
        return f"{self.code}{middle}{self.text}".replace("\n", " / ")

    def encode(self) -> bytes:
        """The bytes to send, CRLF at the end of each line.

        Non-ASCII text goes out as UTF-8: only a client that asked for SMTPUTF8 can have put it there (RFC 6531
        §3.7.4.2), since its address is refused otherwise.
        """
        text = self.text
        if len(text) <= MAX_TEXT and text.isprintable() and text.isascii():
            if self.enhanced:
                return f"{self.code} {self.enhanced} {text}\r\n".encode("ascii")
            return f"{self.code} {text}\r\n".encode("ascii")
        start = f"{self.enhanced} " if self.enhanced else ""
        lines = [start + _one_line(line) for line in text.split("\n")]
        coded = [f"{self.code}-{line}\r\n" for line in lines[:-1]]
        coded.append(f"{self.code} {lines[-1]}\r\n")
        return "".join(coded).encode()


def _one_line(text: str) -> str:
    # An address or a hook's words may carry a CR or LF: echoed, they would forge a reply line.
    safe = "".join(character if character.isprintable() else "?" for character in text)
    return safe.encode()[:MAX_TEXT].decode("utf-8", "ignore")


OK = Reply(250, "2.0.0", "OK")
SENDER_OK = Reply(250, "2.1.0", "sender OK")
RECIPIENT_OK = Reply(250, "2.1.5", "recipient OK")
# RFC 5321 §3.5.3: 252 says that nothing was looked up; to say more would list accounts for anybody who asks.
CANNOT_VERIFY = Reply(252, "2.5.0", "cannot verify, but will take mail and try to deliver it")
START_BODY = Reply(354, "", "end the message with <CR><LF>.<CR><LF>")
READY_FOR_TLS = Reply(220, "2.0.0", "ready for TLS")
AUTHENTICATED = Reply(235, "2.7.0", "log-in succeeded")
HELP = Reply(
    214,
    "2.0.0",
    "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH\nRFC 5321 says what they mean",
)

TIMED_OUT = Reply(421, "4.4.2", "no input for too long, closing")
SESSION_TOO_LONG = Reply(421, "4.4.2", "the session took too long, closing")
SHUTTING_DOWN = Reply(421, "4.3.2", "the server is stopping, try again in a minute")
UPDATING = Reply(421, "4.3.2", "an update is running, try again in a minute")
TOO_MANY_CONNECTIONS = Reply(421, "4.3.2", "too many connections, try again later")
TOO_MANY_FROM_PEER = Reply(421, "4.7.0", "too many connections from your address, close some first")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "too many errors, closing")
TOO_MANY_IDLE_COMMANDS = Reply(421, "4.7.0", "too many commands without a message, closing")
INSUFFICIENT_STORAGE = Reply(452, "4.3.1", "no room on the disk here now, try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "too many recipients, send the rest in another message")
TLS_NOT_AVAILABLE = Reply(454, "4.7.0", "TLS is not available now, try again later")

NOT_RECOGNISED = Reply(500, "5.5.2", "command not recognised")
LINE_TOO_LONG = Reply(500, "5.5.2", "line too long")
BARE_LINE_END = Reply(500, "5.5.2", "bare CR or LF: lines end with <CR><LF> (RFC 5321 section 2.3.8)")
NOT_ASCII = Reply(500, "5.5.2", "a control or malformed character in the command")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "command not implemented")
NOT_WAITED = Reply(503, "5.5.0", "input before the reply that this command must wait for (RFC 2920 section 3.1)")
CHUNK_MALFORMED = Reply(501, "5.5.4", "say BDAT, a number of octets, and LAST if it is the last (RFC 3030 section 2)")
NO_RECIPIENTS = Reply(554, "5.5.1", "no valid recipients")
TALKED_FIRST = Reply(554, "5.5.0", "input before the greeting, closing")
TLS_FIRST = Reply(530, "5.7.0", "STARTTLS first")
LOGIN_FIRST = Reply(530, "5.7.0", "log in first")
LOGIN_NEEDS_TLS = Reply(538, "5.7.11", "STARTTLS first: a password would travel readable")
LOGIN_FAILED = Reply(535, "5.7.8", "wrong user name or password")
LOGIN_CANCELLED = Reply(501, "5.7.0", "log-in cancelled")
LOGIN_MALFORMED = Reply(501, "5.5.2", "the log-in data is malformed")
LOGIN_TOO_LONG = Reply(500, "5.5.6", "the log-in data is too long")
MECHANISM_UNKNOWN = Reply(504, "5.5.4", "this way of logging in is not offered")
MESSAGE_TOO_BIG = Reply(552, "5.3.4", "the message is larger than this server takes (see SIZE)")
BARE_LINE_END_IN_BODY = Reply(
    550, "5.5.2", "bare CR or LF in the message: lines end with <CR><LF> (RFC 5321 section 2.3.8)"
)
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "a non-ASCII address needs the SMTPUTF8 parameter")
RELAYING_DENIED = Reply(550, "5.7.1", "relaying denied: that domain is not served here")


def greeting(hostname: str, lmtp: bool = False) -> Reply:
    """RFC 5321 §4.3.1: the host name is the greeting's first word."""
    return Reply(220, "", f"{hostname} {'LMTP' if lmtp else 'ESMTP'} Mailstead")


def hello(hostname: str) -> Reply:
    """HELO's answer."""
    return Reply(250, "", hostname)


def extensions(hostname: str, keywords: list[str]) -> Reply:
    """EHLO's and LHLO's answer: one keyword a line."""
    return Reply(250, "", "\n".join([hostname, *keywords]))


def challenge(encoded: str) -> Reply:
    """RFC 4954 §4: `encoded` is base64."""
    return Reply(334, "", encoded)


def goodbye(hostname: str) -> Reply:
    """QUIT's answer."""
    return Reply(221, "2.0.0", f"{hostname} closing the connection")


def bad_sequence(text: str = "bad sequence of commands") -> Reply:
    """503: the command is known, but not now."""
    return Reply(503, "5.5.1", text)


def syntax(text: str) -> Reply:
    """501: the command's arguments are malformed; `text` says how they should look."""
    return Reply(501, "5.5.4", text)


def bad_sender(text: str) -> Reply:
    """501: the sender's address is malformed."""
    return Reply(501, "5.1.7", text)


def bad_recipient(text: str) -> Reply:
    """501: the recipient's address is malformed."""
    return Reply(501, "5.1.3", text)


def unknown_parameter(keyword: str) -> Reply:
    """555: a MAIL or RCPT parameter that EHLO did not offer."""
    return Reply(555, "5.5.4", f"parameter {keyword} is not known or not offered")


def mailbox_unavailable(address: str) -> Reply:
    """550: no such recipient."""
    return Reply(550, "5.1.1", f"<{address}> is not an address here")


def mailbox_disabled(address: str) -> Reply:
    """550: the account exists and takes no mail."""
    return Reply(550, "5.2.1", f"<{address}> takes no mail")


def delivered(trace: str) -> Reply:
    """250 after the message is durable; the trace id is what `mailstead trace` asks for."""
    return Reply(250, "2.6.0", f"{trace} delivered")


def not_delivered(trace: str) -> Reply:
    """451: the message is not durable in every place it must go to."""
    return Reply(451, "4.3.0", f"{trace} could not be delivered, try again later")


def not_forwarded(trace: str) -> Reply:
    """550: the address only leads elsewhere, and smtp-out refuses to send there."""
    return Reply(550, "5.7.1", f"{trace} cannot be forwarded to where this address leads")


def rejected_by_rules(text: str) -> Reply:
    """550 in the words of the recipient's own rules (RFC 5429 §2.1); letters beyond ASCII have no place in a reply."""
    said = " ".join("".join(each if " " <= each <= "~" else "?" if each > "~" else " " for each in text).split())
    return Reply(550, "5.7.1", said[:400] or "the recipient does not want this message")


def chunk_taken(octets: int) -> Reply:
    """250 to a BDAT that is not the last: nothing is durable yet."""
    return Reply(250, "2.0.0", f"{octets} octets received")


def queued(trace: str) -> Reply:
    """250 after the message is durable in the queue."""
    return Reply(250, "2.6.0", f"{trace} queued")


def temporary(error_id: str) -> Reply:
    """451 for a fault of ours: the peer sees the id, never the exception's text."""
    return Reply(451, "4.3.0", f"an error here, try again later ({error_id})")
