"""Every IMAP corner, a dialogue file each, against a room with one account.

`@start`: greeting (default), logged-in, or selected (INBOX): what has been done on each connection before the first
line. `@clients`: how many such connections there are. `@letters`: messages that lie in new/ at the start. `@port`: open
(log-ins in the clear, for tests), strict or tls. `@event`: a kind of event that must be on record afterwards. Any other
`@` line is a setting of the room.
"""

import asyncio
import os
from pathlib import Path

import pytest

from tests.dialogues.runner import Connection, Dialogue, Player, collect
from tests.unit.imap.imap_world import ANN, PASSWORD, World, client_tls, letters, run, server_tls, world

FOLDER = Path(__file__).parent / "imap"
ARRIVED = 1_769_947_200  # 1 February 2026, noon UTC
OWN = {"start", "clients", "letters", "port", "event"}


async def begin(place: World, port: int, *, select: bool) -> Connection:
    """A connection that has been greeted, has logged in, and has selected INBOX where it should."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    await reader.readline()
    for command in (f'l LOGIN {ANN} "{PASSWORD}"', *(["s SELECT INBOX"] if select else [])):
        writer.write(command.encode() + b"\r\n")
        while not (line := await asyncio.wait_for(reader.readline(), 5)).startswith(command[:1].encode() + b" "):
            pass
        assert line.split()[1] == b"OK", line
    return Connection(reader, writer)


async def play(dialogue: Dialogue, folder: Path, certificates: Path) -> None:
    given = dialogue.settings
    settings = {key: int(value) for key, value in given.items() if key not in OWN}
    async with world(folder, tls=server_tls(certificates), **settings) as place:
        for message in letters(int(given.get("letters", "0"))):
            os.utime(place.deliver(message), (ARRIVED, ARRIVED))
        port = {"open": place.port, "strict": place.strict_port, "tls": place.tls_port}[given.get("port", "open")]
        player = Player("127.0.0.1", port, tls=client_tls(), tls_from_start=given.get("port") == "tls")
        if (start := given.get("start", "greeting")) != "greeting":
            for number in range(1, int(given.get("clients", "1")) + 1):
                name = "" if number == 1 else str(number)
                player.connections[name] = await begin(place, port, select=start == "selected")
        await player.play(dialogue)
        if kind := given.get("event"):
            assert place.record.of(kind), [event["kind"] for event in place.record.events]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.mark.parametrize("dialogue", collect(FOLDER))
def test_dialogue(dialogue: Dialogue, tmp_path: Path, certificates: Path) -> None:
    run(play(dialogue, tmp_path, certificates))
