"""The command line's way to the API of the admin room, in the same container, and its way of printing.

No second program writes the databases: everything goes through the JSON API on loopback with the token of `cli.json`,
which only this container's user can read. The standard library alone, so that a command answers at once.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

ADMIN_DIR = "/var/lib/mailstead/admin"
TOKEN_FILE = "cli.json"  # noqa: S105 - a file name
API = "/api/v1"
SECONDS = 60.0
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Failed(Exception):
    """The command did not succeed: one line on stderr, exit 1."""


class Usage(Exception):
    """The command was wrong: one line on stderr, exit 2."""


class Client:
    """Asks the API."""

    def __init__(self, admin_dir: str) -> None:
        """`admin_dir` is the room's folder; nothing is read before the first question."""
        self.admin_dir = admin_dir
        self._host, self._port, self._token = "", 0, ""

    def ask(self, method: str, path: str, body: object = None, **query: object) -> Any:
        """The answer's JSON; raises Failed with the server's own sentence."""
        if not self._token:
            self._read_token()
        given = {name: str(value) for name, value in query.items() if value is not None}
        target = API + path + ("?" + urlencode(given) if given else "")
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self._host, self._port, timeout=SECONDS)
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            status, content = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"the admin service does not answer: {error or 'no answer in time'}") from None
        finally:
            connection.close()
        try:
            answer = json.loads(content) if content else None
        except ValueError:
            raise Failed(f"the admin service gave an odd answer ({status})") from None
        if status >= 400:
            words = answer.get("error") if isinstance(answer, dict) else None
            raise Failed(str(words or f"the admin service refused it ({status})"))
        return answer

    def _read_token(self) -> None:
        path = os.path.join(self.admin_dir, TOKEN_FILE)
        try:
            with open(path, encoding="ascii") as file:
                found = json.load(file)
            self._host, self._port = urlsplit(found["url"]).hostname or "", urlsplit(found["url"]).port or 80
            self._token = str(found["token"])
        except FileNotFoundError:
            raise Failed(f"the admin service does not run: there is no {path}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failed(f"{path} cannot be read: {error}") from None


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="@")


class Output:
    """Prints an answer: as JSON where that was asked for, else in words."""

    def __init__(self, as_json: bool) -> None:
        """`as_json`: `--json` was given."""
        self.as_json = as_json

    def answer(self, value: Any, *lines: str) -> None:
        """`value` as JSON, or `lines`."""
        if self.as_json:
            print(json.dumps(value, indent=2))
        else:
            for line in lines:
                say(line)

    def notes(self, value: Any) -> None:
        """What happens by itself later, on stderr."""
        for note in value.get("notes", []) if isinstance(value, dict) and not self.as_json else []:
            print(f"note: {plain(str(note))}", file=sys.stderr)

    def table(self, value: Any, head: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
        """`value` as JSON, or `rows` under `head`, or the words `empty`."""
        if self.as_json or not rows:
            self.answer(value, empty)
            return
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
        for row in (head, *rows):
            say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def say(line: str) -> None:
    """One line for a person. Names and replies of strangers must not steer the terminal."""
    print(plain(line))


def plain(text: str) -> str:
    """`text` without control characters."""
    return _CONTROL.sub("\ufffd", text)


def size_text(size: int | None) -> str:
    """Bytes as a person reads them."""
    if size is None:
        return "-"
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def parse_size(text: str) -> int:
    """`500M`, `2GiB`, `0`: bytes; raises Usage. M is 1024 × 1024, as other mail servers' quotas have it."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*(?:([kmgt])(?:i?b)?|b)?", text.strip().lower())
    if not match:
        raise Usage(f"{text!r} is not a size such as 500M or 2GiB; 0 is no limit")
    return int(float(match[1]) * 1024 ** (" kmgt".index(match[2]) if match[2] else 0))


def time_text(seconds: float | None) -> str:
    """Seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"


def confirmed(question: str) -> bool:
    """A yes typed at the terminal."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def given_up() -> NoReturn:
    """The person said no."""
    raise Failed("nothing was changed")
