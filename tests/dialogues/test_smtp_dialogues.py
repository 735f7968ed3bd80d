"""Every SMTP and LMTP corner, a dialogue file each, against the smtp-in room and a submission listener as smtp-out has.

`@server`: smtp (default), lmtp, proxy, submission (STARTTLS) or submissions (implicit TLS). `@delivered`: text that a message in
some mailbox must hold afterwards. Any other `@` line is a setting of the room.
"""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

from services.protocol import reply as replies
from services.protocol.reply import Reply
from services.runtime.listener import listen, listen_tls
from services.smtp.door import EngineDoor
from services.smtp.engine import Engine
from services.smtp.handler import EngineConfig
from tests.dialogues.runner import Dialogue, Player, collect
from tests.receivingroom import ISSUED, ReceivingRoom

FOLDER = Path(__file__).parent / "smtp"


def server_context() -> ssl.SSLContext:
    """With the tests' certificate; the files of a context must exist only while it is made."""
    import tempfile

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as chain:
        chain.write(ISSUED.chain + ISSUED.key)
        chain.flush()
        context.load_cert_chain(chain.name)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Submission:
    """Hooks of a listener with log-ins: anna's is quick, slow's waits until somebody says LET GO, bug is a bug."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    def emit(self, kind: str, trace: str, *, outcome: str = "info", **fields: Any) -> None:
        if fields.get("reply") == str(replies.NOT_RECOGNISED):
            self.let_go.set()

    def handle_CONNECT(self, *_: Any) -> None:
        return None

    handle_EHLO = handle_HELO = handle_DISCONNECT = handle_CONNECT

    async def handle_AUTH(self, server: Any, session: Any, envelope: Any, mechanism: str, credentials: Any) -> Reply:
        if credentials.login == "slow":
            await self.let_go.wait()
        session.account = credentials.login
        return replies.AUTHENTICATED if credentials.password == "secret" else replies.LOGIN_FAILED

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, path: Any, params: Any) -> Reply:
        if path.local == "bug":
            raise RuntimeError("with details that are nobody's business")
        return replies.SENDER_OK

    async def handle_RCPT(self, *_: Any) -> Reply:
        return replies.RECIPIENT_OK

    def handle_DATA_BEGIN(self, *_: Any) -> Reply:
        return replies.INSUFFICIENT_STORAGE

    async def handle_DATA(self, *_: Any) -> Reply:
        return replies.OK


async def against_submission(dialogue: Dialogue) -> None:
    """Play on a listener as smtp-out has them."""
    implicit = dialogue.settings["server"] == "submissions"
    handler = Submission()
    config = EngineConfig(
        "mail.example.test", 1_000_000, tls=server_context, implicit_tls=implicit, auth=("PLAIN", "LOGIN"),
        require_auth=True, events=handler,
    )  # fmt: skip
    if implicit:
        assert config.tls is not None
        listener = await listen_tls(lambda: Engine(handler, config), "127.0.0.1:0", config.tls, EngineDoor(config))
    else:
        listener = await listen(lambda: Engine(handler, config), "127.0.0.1:0")
    await Player("127.0.0.1", listener.port, tls=client_context(), tls_from_start=implicit).play(dialogue)
    listener.close()
    await config.connections.drain(1)


async def against_the_room(dialogue: Dialogue, folder: Path) -> None:
    """Play on the smtp-in room."""
    settings = dict(dialogue.settings)
    listener, delivered = settings.pop("server", "smtp"), settings.pop("delivered", "")
    given = {name: int(value) if value.isdigit() else value for name, value in settings.items()}
    async with ReceivingRoom(folder, **given) as room:
        player = Player("127.0.0.1", room.port(listener), {"login": room.login}, tls=client_context())
        await player.play(dialogue)
        everything = b"\n".join(room.messages("anna@example.test") + room.messages("berta@example.test"))
        assert delivered.encode() in everything, everything
        assert b"smuggled" not in everything
        assert not room.events.of("bug")


@pytest.mark.parametrize("dialogue", collect(FOLDER))
def test_dialogue(dialogue: Dialogue, tmp_path: Path) -> None:
    if dialogue.settings.get("server", "").startswith("submission"):
        asyncio.run(against_submission(dialogue))
    else:
        asyncio.run(against_the_room(dialogue, tmp_path))
