"""Two small servers that scenarios play the outside world with: a mail server that follows a script, and a DNS server.

Both listen on loopback, run in a thread of their own, and remember what they were asked. They are simple on purpose
and share no code with services/, so that one fault cannot hide in both.
"""

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass(slots=True)
class Received:
    """One message that a fake mail server said 250 to."""

    sender: str
    recipients: list[str]
    message: bytes
    login: str = ""


@dataclass(slots=True)
class Script:
    """How a fake mail server behaves; tests change it while the server runs.

    `replies` maps a recipient to its whole reply line. `after_data` is the reply to the final dot; "" closes the
    connection there instead. `hold` keeps the reply to the final dot back until it is set.
    """

    greeting: str = "220 fake.test ESMTP"
    login: tuple[str, str] | None = None
    replies: dict[str, str] = field(default_factory=dict)
    after_data: str = "250 2.0.0 taken"
    hold: threading.Event | None = None
    extensions: tuple[str, ...] = ("8BITMIME", "SMTPUTF8", "PIPELINING", "SIZE 100000000")


class FakeMailServer:
    """A scripted SMTP server; `received` grows with each message that it accepts."""

    def __init__(
        self, script: Script | None = None, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.script = script or Script()
        self.received: list[Received] = []
        self.connections = 0
        self._tls = tls
        self._arrived = threading.Condition()
        self._listener = socket.create_server((host, 0), backlog=64)
        self.host, self.port = self._listener.getsockname()[:2]
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_for(self, count: int = 1, seconds: float = 20) -> list[Received]:
        """The messages, once there are `count` of them; fails after `seconds`."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.received) >= count, seconds), self.received
            return list(self.received)

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        with contextlib.suppress(OSError, ValueError), connection:
            _Session(self, connection).run()


class _Session:
    """One connection of FakeMailServer, in protocol order."""

    def __init__(self, server: FakeMailServer, connection: socket.socket) -> None:
        self.server, self.script = server, server.script
        self.connection: socket.socket = connection
        self.file = connection.makefile("rb")
        self.login, self.sender, self.recipients = "", "", list[str]()

    def say(self, *lines: str) -> None:
        self.connection.sendall("".join(line + "\r\n" for line in lines).encode())

    def run(self) -> None:
        self.say(self.script.greeting)
        while line := self.file.readline():
            verb, _, rest = line.decode("utf-8", "replace").rstrip("\r\n").partition(" ")
            verb = verb.upper()
            if verb == "QUIT":
                self.say("221 2.0.0 bye")
                return
            if verb == "DATA" and self.recipients:
                if not self.data():
                    return
            else:
                self.command(verb, rest)

    def command(self, verb: str, rest: str) -> None:
        if verb == "EHLO":
            offered = list(self.script.extensions)
            if self.server._tls and not isinstance(self.connection, ssl.SSLSocket):
                offered.append("STARTTLS")
            if self.script.login:
                offered.append("AUTH PLAIN LOGIN")
            self.say(*(f"250-{extension}" for extension in ["fake.test", *offered][:-1]), f"250 {offered[-1]}")
        elif verb == "STARTTLS" and self.server._tls:
            self.say("220 2.0.0 go on")
            self.connection = self.server._tls.wrap_socket(self.connection, server_side=True)
            self.file = self.connection.makefile("rb")
        elif verb == "AUTH":
            self.auth(rest)
        elif verb == "MAIL":
            self.mail(rest)
        elif verb == "RCPT":
            recipient = rest[rest.index("<") + 1 : rest.index(">")]
            reply = self.script.replies.get(recipient, "250 2.1.5 ok")
            if reply.startswith("2"):
                self.recipients.append(recipient)
            self.say(reply)
        elif verb == "RSET":
            self.sender, self.recipients = "", []
            self.say("250 2.0.0 ok")
        else:
            self.say("250 2.0.0 ok" if verb in ("NOOP", "HELO") else "503 5.5.1 not now")

    def auth(self, rest: str) -> None:
        mechanism, _, initial = rest.partition(" ")
        if mechanism.upper() == "PLAIN":
            if not initial:
                self.say("334 ")
                initial = self.file.readline().decode().strip()
            _, user, password = base64.b64decode(initial).decode().split("\0")
        else:
            self.say("334 VXNlcm5hbWU6")
            user = base64.b64decode(self.file.readline()).decode()
            self.say("334 UGFzc3dvcmQ6")
            password = base64.b64decode(self.file.readline()).decode()
        if (user, password) == self.script.login:
            self.login = user
            self.say("235 2.7.0 welcome")
        else:
            self.say("535 5.7.8 wrong user or password")

    def mail(self, rest: str) -> None:
        if self.script.login and not self.login:
            self.say("530 5.7.0 log in first")
            return
        self.sender, self.recipients = rest[rest.index("<") + 1 : rest.index(">")], []
        self.say("250 2.1.0 ok")

    def data(self) -> bool:
        """Take a message; False when the script says to close instead of answering."""
        self.say("354 go on")
        lines = []
        while (line := self.file.readline()) != b".\r\n":
            if not line:
                return False
            lines.append(line[1:] if line.startswith(b".") else line)
        if self.script.hold:
            self.script.hold.wait(60)
        if not self.script.after_data:
            return False
        if self.script.after_data.startswith("2"):
            received = Received(self.sender, self.recipients, b"".join(lines), self.login)
            with self.server._arrived:
                self.server.received.append(received)
                self.server._arrived.notify_all()
        self.say(self.script.after_data)
        return True


class FakeDns:
    """An authoritative DNS server on UDP: `records` maps (name, type) to the values in zone file form.

    A name without any record does not exist; `dead` makes it silent.
    """

    def __init__(self, records: Mapping[tuple[str, str], list[str]] | None = None) -> None:
        self.records = dict(records or {})
        self.asked: list[tuple[str, str]] = []
        self.dead = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                packet, peer = self._socket.recvfrom(4096)
                if not self.dead:
                    self._socket.sendto(self._answer(packet), peer)
            except OSError:
                return

    def _answer(self, packet: bytes) -> bytes:
        query = dns.message.from_wire(packet)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        response = dns.message.make_response(query, recursion_available=True)
        values = self.records.get((name, kind))
        if values:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *values))
        elif not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response.to_wire(max_size=65535)


@contextlib.contextmanager
def mail_server(script: Script | None = None, tls: ssl.SSLContext | None = None) -> Iterator[FakeMailServer]:
    server = FakeMailServer(script, tls)
    try:
        yield server
    finally:
        server.close()
