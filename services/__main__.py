"""All rooms in one process, without Docker and without root: `python -m services --data DIR`.

For a machine of 512 MB, for a first look, and for the scenarios of the tests. The rooms are the same and meet on the
same protocols over loopback; what is missing is the isolation between them, and the start says so. Ports are
unprivileged ones on 127.0.0.1 (`--ports auto`: any free ones). One JSON line on stdout says when all rooms are ready.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping

from services.runtime import secrets
from services.runtime.events import EventLog
from services.runtime.health import Health
from services.runtime.process import (
    EXIT_WRONG_SETTING,
    Context,
    Serve,
    execute,
    flush_events,
    given_up,
    new_runner,
    open_record,
    received,
)
from services.runtime.values import Settings, WrongSetting

# Started in this order, stopped in the other: who is asked comes before who asks.
ROOMS = ("acme", "dkim", "admin", "imap", "smtp-out", "smtp-in", "updater")

# Listener → its port with `--ports default`: the service's own number plus 2000, which needs no root.
PORTS = {
    "smtp": 2025,
    "smtp-proxy": 2027,
    "lmtp": 2024,
    "submissions": 2465,
    "submission": 2587,
    "forward": 2026,
    "imaps": 2993,
    "imap": 2143,
    "admin": 8080,
    **{f"http-{room}": 2800 + number for number, room in enumerate(ROOMS)},
}
READY_SECONDS = 60


def main() -> None:
    """Parse the arguments, validate the settings, then execute this program again with plain values."""
    if len(sys.argv) == 3 and sys.argv[1] == "--values":
        values = received(int(sys.argv[2]))
        sys.exit(_run(Settings(**values["settings"]), values["ports"]))
    arguments = _arguments()
    from services.runtime import settings as environment

    given, lines = environment.from_files(arguments.env)
    for line in lines:
        print(f"mailstead: warning: {line}", file=sys.stderr)
    try:
        settings = environment.read(given)
    except WrongSetting as error:
        print(f"mailstead: cannot start: {error}", file=sys.stderr)
        sys.exit(EXIT_WRONG_SETTING)
    ports = _free_ports() if arguments.ports == "auto" else PORTS
    settings = _housed(settings, os.path.abspath(arguments.data), ports)
    execute("services", {"settings": dataclasses.asdict(settings), "ports": ports}, environment.search_path())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services", description="Mailstead in one process, without Docker.")
    parser.add_argument("--data", default="data", help="folder for everything it keeps (default: ./data)")
    parser.add_argument("--env", default="env", help="folder with the env files (default: ./env)")
    parser.add_argument("--ports", choices=("default", "auto"), default="default", help="auto: any free ports")
    return parser.parse_args()


def _housed(settings: Settings, data: str, ports: Mapping[str, int]) -> Settings:
    """`settings` with every folder under `data` and every listener and peer on loopback."""

    def at(name: str) -> str:
        return f"127.0.0.1:{ports[name]}"

    def url(room: str) -> str:
        return "http://" + at(f"http-{room}")

    return dataclasses.replace(
        settings,
        mail_dir=os.path.join(data, "mail"),
        state_dir=os.path.join(data, "imap"),
        spool_dir=os.path.join(data, "spool"),
        admin_dir=os.path.join(data, "admin"),
        routing_dir=os.path.join(data, "routing"),
        auth_dir=os.path.join(data, "auth"),
        personal_dir=os.path.join(data, "personal"),
        certs_dir=os.path.join(data, "certs"),
        dkim_dir=os.path.join(data, "dkim"),
        events_dir=os.path.join(data, "events"),
        room_dir=os.path.join(data, "room"),
        secrets_dir=os.path.join(data, "secrets"),
        smtp_listen=at("smtp"),
        smtp_proxy_listen=at("smtp-proxy"),
        lmtp_listen=at("lmtp"),
        submissions_listen=at("submissions"),
        submission_listen=at("submission"),
        forward_listen=at("forward"),
        imaps_listen=at("imaps"),
        imap_listen=at("imap"),
        admin_listen=at("admin"),
        client_imaps_port=ports["imaps"],
        client_submissions_port=ports["submissions"],
        lmtp_address=at("lmtp"),
        forward_address=at("forward"),
        proof_addresses=",".join(at(name) for name in ("smtp", "submissions", "submission", "imaps", "imap")),
        gate_addresses=",".join(at(name) for name in ("smtp", "submissions", "imaps")),
        smtp_in_url=url("smtp-in"),
        smtp_out_url=url("smtp-out"),
        imap_url=url("imap"),
        dkim_url=url("dkim"),
        acme_url=url("acme"),
        admin_url=url("admin"),
        updater_url=url("updater"),
        resolver="" if settings.resolver == "unbound:53" else settings.resolver,
        docker_url="",  # nothing to update: whoever installed the code updates it
        single_process=True,
    )


def _free_ports() -> dict[str, int]:
    """A free loopback port for each listener; all are held until the last is found, so that none comes twice."""
    with contextlib.ExitStack() as held:
        ports = {}
        for name in PORTS:
            opened = held.enter_context(socket.socket())
            opened.bind(("127.0.0.1", 0))
            ports[name] = int(opened.getsockname()[1])
        return ports


def _run(settings: Settings, ports: Mapping[str, int]) -> int:
    os.umask(0o027)
    for room in ROOMS:
        os.makedirs(os.path.join(settings.events_dir, room), exist_ok=True)
        os.makedirs(os.path.join(settings.room_dir, room), exist_ok=True)
    for field in (
        "mail_dir",
        "state_dir",
        "spool_dir",
        "admin_dir",
        "routing_dir",
        "auth_dir",
        "personal_dir",
        "certs_dir",
        "dkim_dir",
    ):
        os.makedirs(getattr(settings, field), exist_ok=True)
    secrets.make(settings.secrets_dir, secrets.every_name())
    with new_runner() as runner:
        return runner.run(_supervise(settings, ports))


async def _supervise(settings: Settings, ports: Mapping[str, int]) -> int:
    """Run every room until a signal, or until one fails; the exit status."""
    records = {room: open_record(room, settings) for room in ROOMS}
    contexts = [_context(room, settings, ports, records[room]) for room in ROOMS]
    print("mailstead: one process: the rooms are not isolated from each other", file=sys.stderr)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    flushers = [asyncio.create_task(flush_events(record)) for record in records.values()]
    rooms = [asyncio.create_task(_room(context, _entry(context.room), ended)) for context in contexts]
    announcer = asyncio.create_task(_announce(contexts, settings, ports))
    gc.freeze()
    await ended.wait()
    announcer.cancel()
    statuses = []
    for context, task in reversed(list(zip(contexts, rooms, strict=True))):
        context.stop.set()
        statuses.append(await task)
    for flusher in flushers:
        flusher.cancel()
    for record in records.values():
        record.close()
    return max(statuses)


def _context(room: str, settings: Settings, ports: Mapping[str, int], record: EventLog) -> Context:
    own = dataclasses.replace(
        settings, http_listen=f"127.0.0.1:{ports[f'http-{room}']}", room_dir=os.path.join(settings.room_dir, room)
    )
    return Context(room, own, record, secrets.Secrets(settings.secrets_dir), Health(room))


def _entry(room: str) -> Serve:
    serve: Serve = importlib.import_module(f"services.{room.replace('-', '_')}.room").serve
    return serve


async def _room(context: Context, serve: Serve, ended: asyncio.Event) -> int:
    """One room; when it ends by itself, everything ends: half a mail server is a way to lose mail unseen."""
    try:
        await serve(context)
        return 0
    except Exception as error:
        return given_up(context, error)
    finally:
        ended.set()


async def _announce(contexts: list[Context], settings: Settings, ports: Mapping[str, int]) -> None:
    """Print one JSON line when every room is ready, or name on stderr those that are not after a minute."""
    deadline = asyncio.get_running_loop().time() + READY_SECONDS
    while waiting := [context.room for context in contexts if not context.health.started]:
        if asyncio.get_running_loop().time() > deadline:
            print(f"mailstead: still waiting for {', '.join(waiting)}", file=sys.stderr)
            deadline += READY_SECONDS
        await asyncio.sleep(0.05)
    page = f"{'https' if settings.admin_tls else 'http'}://127.0.0.1:{ports['admin']}/"
    print(
        json.dumps({"ready": page, **ports, "login": settings.administrator, "password": _first_password(settings)}),
        flush=True,
    )


def _first_password(settings: Settings) -> str:
    """The first administrator's password, "" once it was changed."""
    try:
        with open(os.path.join(settings.admin_dir, "first-password")) as file:
            return file.read().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
