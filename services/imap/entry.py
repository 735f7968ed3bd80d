"""How a client comes in: TLS, then LOGIN or AUTHENTICATE (RFC 3501 §6.2, RFC 4959). Lives until the log-in succeeds.

Made by the connection, which it asks to read lines (SASL's answers) and to carry out what has to be waited for. It
never checks a password: `gate` does.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

from services.imap.faults import Refusal
from services.imap.handlers import login
from services.imap.session import Session
from services.protocol import imap_responses as respond
from services.protocol.imap_commands import Authenticate, Login
from services.protocol.sasl import MECHANISMS, Mechanism, PasswordCredentials, SaslError, decode_base64

if TYPE_CHECKING:
    from services.imap.connection import Connection

# Log-ins that fail on one connection: a person's program asks again after the first.
MAX_LOGINS = 3

Step = Callable[[bytes], bytes | PasswordCredentials]


class Entry:
    """One client that has not logged in yet."""

    __slots__ = ("_connection", "_failed")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._failed = 0

    # --- TLS

    def starttls(self, tag: bytes) -> None:
        """§6.2.1."""
        connection = self._connection
        if connection.secure or connection.desk.tls is None:
            connection.fault(tag, "STARTTLS cannot be used now")
            return
        if connection.reader.discard():
            # CVE-2011-0411: what came in the clear behind STARTTLS would be taken as if it came over TLS.
            connection.emit("disconnect", outcome="reject", reason="commands sent ahead of the TLS handshake")
            connection.wire.write(respond.bad(tag, b"nothing may follow STARTTLS before the handshake"))
            connection.wire.close()
            return
        connection.wire.write(respond.ok(tag, b"begin TLS now"))
        # From here on no octet is read as anything but TLS.
        connection.wire.pause_reading()
        connection.start(self._handshake())

    async def _handshake(self) -> None:
        connection = self._connection
        tls = connection.desk.tls
        assert tls is not None
        try:
            await connection.wire.start_tls(connection, tls())
        except (OSError, TimeoutError) as error:
            connection.emit("tls", outcome="reject", reason=str(error) or "the handshake was not finished in time")
            connection.wire.abort()
            return
        connection.secured()
        connection.await_login()

    # --- the log-in

    def log_in(self, tag: bytes, command: Login | Authenticate) -> None:
        """§6.2.2 AUTHENTICATE, §6.2.3 LOGIN."""
        connection = self._connection
        if not connection.may_log_in:
            # RFC 3501 §11.1, RFC 5530. A password is in the clear by now; it is not even looked at.
            connection.refuse(tag, Refusal("use STARTTLS first", b"PRIVACYREQUIRED"))
        elif isinstance(command, Login):
            try:
                given = login.login_credentials(command)
            except Refusal as refusal:
                connection.refuse(tag, refusal)
                return
            connection.start(self._enter(tag, given, "LOGIN command"))
        else:
            made = MECHANISMS.get(command.mechanism)
            if made is None:
                connection.refuse(tag, Refusal("this mechanism is not offered", b"CANNOT"))
                return
            mechanism = made()
            if command.initial is None:
                self._step(tag, mechanism, lambda _: mechanism.start(None), b"")
            else:
                self._step(tag, mechanism, mechanism.start, command.initial)

    def _answer(self, tag: bytes, mechanism: Mechanism, line: bytes) -> None:
        if line == b"*":
            self._connection.fault(tag, "the log-in was given up")  # §6.2.2
        else:
            self._step(tag, mechanism, mechanism.respond, line)

    def _step(self, tag: bytes, mechanism: Mechanism, step: Step, response: bytes) -> None:
        connection = self._connection
        try:
            found = step(decode_base64(response))
        except SaslError as error:
            connection.fault(tag, str(error))
            return
        if isinstance(found, PasswordCredentials):
            connection.start(self._enter(tag, found, mechanism.name))
            return
        connection.wire.write(respond.continuation(base64.b64encode(found)))
        connection.await_line(lambda line: self._answer(tag, mechanism, line))

    async def _enter(self, tag: bytes, given: PasswordCredentials, mechanism: str) -> None:
        connection = self._connection
        accounts = connection.desk.accounts
        try:
            found = await connection.desk.gate.log_in(given, connection.peer, connection.trace, mechanism)
            account = await accounts.open(found.address)
        except Exception as error:
            refusal = connection.refusal_for(error, "opening an account")
            connection.wire.write(respond.status(tag, refusal.condition, refusal.text, refusal.code))
            self._failed += 1
            if self._failed >= MAX_LOGINS:
                connection.end("too many log-ins")
            return
        if connection.wire.lost:
            accounts.release(account)
        else:
            connection.logged_in(tag, account, Session(account.address, account.store))
