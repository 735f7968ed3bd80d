"""Secrets per pair, sockets per family, and what a zone answers."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from services.runtime import listener, secrets
from services.runtime.dns import NoAnswer, NoSuchName, TemporaryFailure, ZoneLookup


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    made = secrets.make(str(tmp_path / "s"), secrets.names_for("dkim"))
    assert made == ["dkim+smtp-out", "admin+dkim"]
    assert secrets.make(str(tmp_path / "s"), secrets.names_for("dkim")) == []
    path = tmp_path / "s" / "dkim+smtp-out"
    assert path.stat().st_mode & 0o777 == 0o600
    ours = secrets.Secrets(str(tmp_path / "s"))
    assert ours.pair("smtp-out", "dkim") == path.read_text()
    assert len(ours.pair("dkim", "admin")) == 64
    with pytest.raises(secrets.SecretMissing):
        ours.pair("dkim", "imap")


def test_an_empty_secret_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "dkim+smtp-out").write_text("")
    with pytest.raises(secrets.SecretMissing):
        secrets.Secrets(str(tmp_path)).pair("dkim", "smtp-out")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (":25", ("", 25)),
        ("[::1]:993", ("::1", 993)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("mx.example:25", ("mx.example", 25)),
    ],
)
def test_addresses(text: str, parts: tuple[str, int]) -> None:
    assert listener.host_and_port(text) == parts


@pytest.mark.parametrize("text", ["", "25", ":smtp", ":65536", "host"])
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        listener.host_and_port(text)


def test_an_empty_host_is_both_families_on_one_port_with_plain_v4_peers() -> None:
    sockets = listener.bind(":0")
    try:
        assert len({each.getsockname()[1] for each in sockets}) == 1
        assert sockets[0].family == socket.AF_INET
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize(
    ("first", "families"),
    [
        ("", {socket.AF_INET: 1, socket.AF_INET6: 1}),
        ("0.0.0.0", {socket.AF_INET: 1}),
        ("127.0.0.2", {socket.AF_INET: 2}),
    ],
)
def test_an_address_that_a_wildcard_covers_needs_no_socket_of_its_own(first: str, families: dict[int, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    sockets = listener.bind(f"{first}:{port}, 127.0.0.1:{port}")
    try:
        opened = [each.family for each in sockets]
        assert {family: opened.count(family) for family in families} == families
        assert {each.getsockname()[1] for each in sockets} == {port}
    finally:
        for each in sockets:
            each.close()


def test_of_several_addresses_the_one_that_is_taken_is_named_and_the_others_are_let_go() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        free = held.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}:"):
            listener.bind(f"127.0.0.1:{free},{address}")
    socket.create_server(("127.0.0.1", free)).close()


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=address):
            listener.bind(address)


def test_zone_lookup_tells_missing_names_from_missing_records() -> None:
    zone = ZoneLookup(
        {("a.test", "MX"): [(20, "b.a.test"), (10, "c.a.test")], ("slow.test", "A"): [TemporaryFailure("slow")]}
    )

    async def story() -> None:
        assert await zone.mx("A.test.") == [(10, "c.a.test"), (20, "b.a.test")]
        with pytest.raises(NoAnswer):
            await zone.txt("a.test")
        with pytest.raises(NoSuchName):
            await zone.mx("b.test")
        with pytest.raises(TemporaryFailure):
            await zone.addresses("slow.test")

    asyncio.run(story())


def test_the_process_id_is_not_in_a_secret_file_name(tmp_path: Path) -> None:
    secrets.make(str(tmp_path), ["srs"])
    assert os.listdir(tmp_path) == ["srs"]  # no partial file is left beside it
