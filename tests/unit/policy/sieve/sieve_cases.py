"""Cases of Sieve: read from text, run by ours and by Debian's `sieve-test`, told in one form that can be compared.

A case is a script and, behind `->`, what comes of it, a line an action. Where Dovecot does otherwise, `!!` has what it
does and `##` why we do not do the same.

    == name [message=plain] [from=anna@far.example] [to=bert@home.example]
    keep;
    -> keep
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from services.message.headers import header_length
from services.policy.sieve.actions import Action, Discard, FileInto, Keep, Redirect, Reject, Vacation
from services.policy.sieve.check import Script, check
from services.policy.sieve.mail import Mail
from services.policy.sieve.run import Outcome, run
from services.policy.sieve.state import World

HERE = Path(__file__).parent
SENDER, RECIPIENT = "anna@far.example", "bert@home.example"
NOW = datetime(2026, 11, 22, 2, 33, tzinfo=UTC)
# The oracle's mailboxes; ours are told the same.
MAILBOXES = ("INBOX", "Work", "Work.Deep")


@dataclass
class Case:
    """One script over one message."""

    name: str
    script: bytes
    message: str = "plain"
    sender: str = SENDER
    recipient: str = RECIPIENT
    gives: list[str] = field(default_factory=list)
    dovecot: list[str] = field(default_factory=list)
    why: str = ""


def messages() -> dict[str, bytes]:
    """The messages by name, with CRLF line ends."""
    sections = re.split(r"^== (\w+)\n", (HERE / "messages.txt").read_text(), flags=re.M)[1:]
    return {
        name: text.encode().replace(b"\n", b"\r\n") for name, text in zip(sections[::2], sections[1::2], strict=True)
    }


MESSAGES = messages()


def _cases() -> Iterator[Case]:
    """Every case of every table."""
    for path in sorted(HERE.glob("*.cases")):
        for section in re.split(r"^== ", path.read_text(), flags=re.M)[1:]:
            head, *lines = section.splitlines()
            name, *options = re.split(r" (?=(?:message|from|to)=)", head)
            given = dict(option.split("=", 1) for option in options)
            script = [line for line in lines if line[:3] not in ("-> ", "!! ", "## ")]
            yield Case(
                f"{path.stem}: {name}",
                "\n".join(script).encode() + b"\n",
                given.get("message", "plain"),
                given.get("from", SENDER).replace("<>", ""),
                given.get("to", RECIPIENT),
                [line[3:] for line in lines if line.startswith("-> ")],
                [line[3:] for line in lines if line.startswith("!! ")],
                " ".join(line[3:] for line in lines if line.startswith("## ")),
            )


CASES = list(_cases())

# --- ours


def ours(case: Case, message: bytes | None = None) -> list[str]:
    """What our interpreter does."""
    script = check(case.script)
    if script.problems:
        return ["error"]
    outcome = _outcome(script, case, MESSAGES[case.message] if message is None else message)
    return (["failed"] if outcome.problem else []) + [told(action) for action in outcome.actions]


def problem(case: Case) -> str:
    """Why a script that can be read fails when it runs."""
    return _outcome(check(case.script), case, MESSAGES[case.message]).problem


def _outcome(script: Script, case: Case, raw: bytes) -> Outcome:
    mail = Mail(raw[: header_length(raw)], len(raw), case.sender, case.recipient, lambda: raw)
    return run(script, mail, World(NOW, lambda name: name in MAILBOXES, lambda use: ""))


def told(action: Action) -> str:
    """An action as a line."""
    match action:
        case Keep(flags):
            return " ".join(["keep", *_flags(flags)])
        case FileInto(mailbox, flags, create, special_use):
            words = ["keep" if mailbox.upper() == "INBOX" else f"fileinto {mailbox}"]
            words += ["create"] * create + [f"use={special_use}"] * bool(special_use)
            return " ".join([*words, *_flags(flags)])
        case Redirect(address):
            return f"redirect {address}"
        case Discard():
            return "discard"
        case Reject(text, _):
            return f"reject {_line(text)}"
        case Vacation():
            words = [f"vacation {action.seconds}"]
            words += [f"subject={_line(action.subject)}"] * bool(action.subject)
            words += [f"from={action.sender}"] * bool(action.sender)
            return " ".join([*words, f"text={_line(action.text)}"])


def _flags(flags: tuple[str, ...] | list[str]) -> list[str]:
    return sorted({flag.lower() for flag in flags})  # Dovecot leaves doubles in


def _line(text: str) -> str:
    return " ".join(text.split())


# --- Dovecot's

CONFIGURATION = """
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = 0
mail_home = {home}
postmaster_address = postmaster@home.example
hostname = mail.home.example
recipient_delimiter = +
lda_mailbox_autocreate = no
plugin {{
  sieve_vacation_min_period = 30m
  sieve_vacation_max_period = 366d
}}
"""
NOBODY = 65534
EXTENSIONS = "+vacation-seconds +special-use"


class Oracle:
    """Debian's sieve-test, in a home of its own."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made; as root the tool becomes nobody, and must be able to walk there."""
        self.folder, self.home = folder, folder / "home"
        uid, gid = (NOBODY, NOBODY) if os.getuid() == 0 else (os.getuid(), os.getgid())
        for mailbox in ("", ".Work", ".Work.Deep"):
            for part in ("cur", "new", "tmp"):
                (self.home / "Maildir" / mailbox / part).mkdir(parents=True)
        if os.getuid() == 0:
            for path in (self.home, *self.home.rglob("*")):
                os.chown(path, uid, gid)
        self.configuration = folder / "dovecot.conf"
        self.configuration.write_text(CONFIGURATION.format(uid=uid, gid=gid, home=self.home))

    def run(self, case: Case, message: bytes | None = None) -> list[str]:
        """What Dovecot does."""
        script, mail = self.folder / "case.sieve", self.folder / "case.eml"
        script.write_bytes(case.script)
        mail.write_bytes(MESSAGES[case.message] if message is None else message)
        done = subprocess.run(
            ["sieve-test", "-c", self.configuration, "-x", EXTENSIONS, "-f", case.sender or "<>", "-a", case.recipient,
             "-r", case.recipient, "-l", f"maildir:{self.home}/Maildir", script, mail],
            capture_output=True, timeout=20, check=False, env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "TZ": "UTC"},
        )  # fmt: skip
        said = done.stderr.decode("utf-8", "replace")
        if "failed to compile" in said:
            return ["error"]
        if done.returncode or "final result: failed" in said:
            return ["failed", "keep"]
        assert "final result: success" in said, said
        return list(_performed(done.stdout.decode("utf-8", "replace")))


_ACTION = re.compile(r"^ \* (.*?)(?=^ \* |^Implicit keep:|\Z)", re.M | re.S)


def _performed(text: str) -> Iterator[str]:
    for match in _ACTION.finditer(text):
        head, _, rest = match[1].partition("\n")
        flags = _flags(found[1].split()) if (found := re.search(r"\+ add IMAP flags: (.*)", rest)) else []
        use = [f"use={found[1]}"] if (found := re.search(r"special-use flag `(.*?)'", rest)) else []
        create = ["create"] if "+ create mailbox" in rest else []
        if head.startswith("store message in folder: "):
            mailbox = head.removeprefix("store message in folder: ")
            words = ["keep"] if mailbox.upper() == "INBOX" else ["fileinto", mailbox]
            yield " ".join([*words, *create, *use, *flags])
        elif head.startswith("redirect message to: "):
            yield "redirect " + head.removeprefix("redirect message to: ").strip("<>")
        elif head.startswith("reject message"):
            yield "reject " + _line(head.partition(": ")[2].replace("??", " "))  # line ends are shown so
        elif head.startswith("send vacation"):
            fields = dict(re.findall(r"^    => (\w+) *: (.*)$", rest, re.M))
            body = re.search(r"START MESSAGE\n(.*)\nEND MESSAGE", rest, re.S)
            words = [f"vacation {fields['seconds']}"]
            words += [f"{key}={_line(fields[key])}" for key in ("subject", "from") if key in fields]
            yield " ".join([*words, f"text={_line(body[1] if body else '')}"])
        else:
            yield head
