"""Start and stop of the admin room: databases, first administrator, internal HTTP, page and API, their tasks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from services.admin import bootstrap
from services.admin.access import TOKEN_FILE, Access, write_token
from services.admin.duties import Duties
from services.admin.event_index import EventIndex
from services.admin.holding import Holding
from services.admin.internal import BanExchange, Facts
from services.admin.mail_gate import MailGate, gate_account
from services.admin.notices import Notices
from services.admin.operations import Operations
from services.admin.overview import Overview
from services.admin.page import serve_page
from services.admin.parts import Parts
from services.admin.peers import ROOMS, Peers
from services.admin.quota_letters import QuotaLetters
from services.admin.sessions import Sessions
from services.admin.snapshots import Snapshots, put_back
from services.admin.tail import Tail
from services.admin.transaction import Transaction
from services.admin.updates import Updates
from services.directory.changes import Directories
from services.directory.database import Database
from services.directory.passwords import Passwords
from services.directory.publish import Publisher
from services.runtime.hold import Hold
from services.runtime.internal_http import serving
from services.runtime.listener import BACKLOG, bind
from services.runtime.process import Context
from services.runtime.version import code_version


async def serve(context: Context) -> None:
    """Serve until `context.stop`; raises OSError for what the owner must mend (a setting, a folder, a taken port)."""
    settings = context.settings
    for folder in (settings.admin_dir, settings.routing_dir, settings.auth_dir):
        os.makedirs(folder, mode=0o750, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise OSError(f"{folder} cannot be read and written by uid {os.geteuid()}")
    for done in await asyncio.to_thread(put_back, settings.admin_dir, code_version):
        context.log("warning" if done.warning else "info", done.reason)
        context.events.emit("update", done.id, outcome="error" if done.warning else "info", reason=done.reason)
    database = await asyncio.to_thread(Database, os.path.join(settings.admin_dir, "directory.db"))
    passwords, peers = Passwords(), Peers(context)
    try:
        directories = Directories(database, Publisher(settings.routing_dir, settings.auth_dir), clock=context.clock)
        made = await asyncio.to_thread(bootstrap.prepare, directories, settings, settings.admin_dir)
        if made:
            context.log("info", f"made the first administrator {made}; its password: scripts/mailstead first-login")
        await _serve(context, directories, passwords, peers)
    finally:
        peers.close()
        passwords.close()
        database.close()


async def _serve(context: Context, directories: Directories, passwords: Passwords, peers: Peers) -> None:
    settings = context.settings
    sockets = bind(settings.admin_listen)
    context.ports["admin"] = sockets[0].getsockname()[1]
    # The command line runs beside us and needs no TLS: where the page has it, there is a way in on loopback.
    inside = bind("127.0.0.1:0") if settings.admin_tls else sockets
    for each in sockets if inside is sockets else [*sockets, *inside]:
        each.listen(BACKLOG)  # before the room is ready: whoever waited for that must not be refused
    token = write_token(settings.admin_dir, _url(inside[0]))
    duties = Duties(context, directories, peers)
    sessions = Sessions(os.path.join(settings.admin_dir, "sessions.json"), clock=context.clock)
    operations = Operations(context, directories, passwords, sessions, duties, peers)
    bans = BanExchange(context, peers)
    hold = Hold(context)

    async def gates_account() -> str:
        return (await asyncio.to_thread(gate_account, directories, settings.mail_domain)).address

    holding = Holding(context, hold, peers, gates_account)
    gate = MailGate(context, directories, passwords, holding, peers)
    snapshots = Snapshots(settings.admin_dir, code_version, context.clock)
    notices = Notices(context, directories.database, peers)
    transaction = Transaction(context, directories.database, snapshots, holding, gate, notices)

    def closed() -> str:
        if not (why := holding.closed()):
            snapshots.mark()
        return why

    directories.closed = closed
    tail = Tail(context, lambda: _index(context))
    parts = Parts(
        context=context,
        directories=directories,
        operations=operations,
        access=Access(context, directories.database, passwords, sessions, token),
        sessions=sessions,
        peers=peers,
        overview=Overview(context, operations, duties, peers, lambda: holding.held),
        bans=bans,
        tail=tail,
        updates=Updates(context, peers, holding, gate),
    )
    try:
        quota_letters = QuotaLetters(context, directories, peers)
        routes = Facts(context, directories, bans, holding.closed, quota_letters.wake).routes()
        transaction.add_to(routes)
        async with serving(context, routes) as listener:
            context.ports["http"] = listener.port
            async with asyncio.TaskGroup() as group:
                running = [
                    context.spawn(group, duties.run(), "duties to other rooms"),
                    context.spawn(group, bans.run(), "exchange of bans"),
                    context.spawn(group, tail.run(), "index of the record"),
                    context.spawn(group, hold.keep(), "hold"),
                    context.spawn(group, holding.run(), "holding the rooms"),
                    context.spawn(group, notices.run(), "telling of updates"),
                    context.spawn(group, quota_letters.run(), "letters about full mailboxes"),
                ]
                context.health.ready()
                await serve_page(context, parts, sockets, inside)
                for task in running:
                    task.cancel()
    finally:
        await tail.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(settings.admin_dir, TOKEN_FILE))


def _url(listener: socket.socket) -> str:
    """Where the command line, which runs beside us, finds the API."""
    host, port = listener.getsockname()[:2]
    if host == "0.0.0.0":
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _index(context: Context) -> EventIndex:
    settings = context.settings
    return EventIndex(
        os.path.join(settings.admin_dir, "events.db"),
        settings.events_dir,
        (*ROOMS, "admin", "docker-filter"),
        days=settings.events_days,
        room_bytes=settings.events_bytes,
        clock=context.clock,
    )
