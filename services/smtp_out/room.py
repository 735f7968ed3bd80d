"""Start and stop of the smtp-out room.

Opens, in this order: the queue (recovered), the internal HTTP, the internal listener for forwards, and, once there is a
certificate, 465 and 587. Stops in the other: no new connections, sessions end with 421 after the message they are in,
attempts in flight end, then the queue closes. All within the grace; what is still in flight then is counted by the next
start.
"""

from __future__ import annotations

import asyncio
import os

from services.directory.lookup import DirectoryUnavailable, SnapshotDirectory
from services.directory.passwords import Passwords
from services.protocol import reply as replies
from services.runtime.clock import LOOK_SECONDS, Clock
from services.runtime.dns import Resolver
from services.runtime.facts import FactQueue
from services.runtime.gateways import default_gateways
from services.runtime.hold import Hold
from services.runtime.internal_http import serve_http
from services.runtime.listener import Listener, listen, listen_tls
from services.runtime.process import Context
from services.runtime.tls import ServerCertificates
from services.smtp.engine import Connections, Engine, EngineConfig, EngineDoor, Handler
from services.smtp_out.endpoints import Endpoints
from services.smtp_out.forwards import Forwards
from services.smtp_out.login import Logins
from services.smtp_out.next_hop import destination_of
from services.smtp_out.outgoing import Sending
from services.smtp_out.owners import administrator, owner_of
from services.smtp_out.queue_runner import QueueRunner
from services.smtp_out.signing import Signer
from services.smtp_out.submission import Submission
from services.smtp_out.tls_policy import check_relay
from services.storage.errors import StorageError
from services.storage.queue import Kind, Queue, Recovery
from services.storage.queue_store import SqliteQueue
from services.storage.spool import Spool

# How often a changed directory is looked for: a domain that becomes ours, or ceases to be, moves its waiting mail.
FOLLOW_SECONDS = 2.0


async def serve(context: Context) -> None:
    """Run until `context.stop`. Raises OSError where the spool or a port cannot be had, WrongSetting for the relay."""
    settings = context.settings
    if settings.relay_host:
        check_relay(settings)
    os.makedirs(settings.room_dir, exist_ok=True)
    spool = Spool(settings.spool_dir)
    try:
        queue = await _opened(spool, context)
        try:
            await _run(context, spool, queue)
        finally:
            await asyncio.to_thread(queue.close)
    finally:
        spool.close()


async def _opened(spool: Spool, context: Context) -> SqliteQueue:
    try:
        queue = await asyncio.to_thread(SqliteQueue, spool, context.clock())
    except StorageError as error:
        raise OSError(f"the queue cannot be opened: {error}") from None
    _tell(context, queue.recovery)
    return queue


def _tell(context: Context, found: Recovery) -> None:
    """What the start found, on the container's log."""
    context.log("info", f"{found.queued} messages in the queue")
    if found.restored:
        context.log("warning", "the queue was restored from a backup: it is held until you release it")
    if found.interrupted:
        context.log("warning", f"{found.interrupted} attempts were cut short by the last stop and may arrive twice")
    if found.orphans:
        context.log("info", f"{found.orphans} files that nobody was told of were removed from the spool")
    if found.missing and not found.restored:
        context.log("error", f"the files of these messages are gone: {', '.join(found.missing[:20])}")


async def _run(context: Context, spool: Spool, queue: Queue) -> None:
    settings = context.settings
    directory = SnapshotDirectory(settings.auth_dir)
    passwords = Passwords()
    facts = FactQueue(context, os.path.join(settings.room_dir, "facts.jsonl"))
    logins = Logins(context, directory, passwords, facts, default_gateways())
    signer = Signer(context)

    def goes_to(address: str, kind: Kind = "submission") -> str:
        return destination_of(address, directory, settings, kind)

    hold, clock = Hold(context), Clock(context)
    resolver = Resolver(settings.resolver)
    runner = QueueRunner(
        context, queue, spool, resolver, goes_to, held=lambda: hold.lease,
        owner_of=lambda header: owner_of(header, directory), administrator=lambda: administrator(directory),
    )  # fmt: skip
    sending = Sending(context, spool, queue, signer, directory, goes_to, runner.added, clock.problem)
    endpoints = Endpoints(context, queue, runner, logins, sending, resolver)
    certificates = ServerCertificates(settings.certs_dir)
    listeners: list[Listener] = []
    people, rooms = Connections(), Connections()
    hold.when_it_begins(lambda _: people.dismiss(replies.UPDATING, hold.exempts))
    hold.when_it_begins(lambda _: runner.look())
    hold.when_it_ends(runner.look)
    routes = endpoints.routes()
    hold.add_to(routes)
    routed = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        keepers = [
            context.spawn(group, work, name)
            for name, work in (
                ("facts", facts.run()),
                ("bans", logins.run()),
                ("hold", hold.keep()),
                ("clock", clock.watch()),
                ("routes", _follow(context, directory, queue, runner, routed)),
            )
        ]
        running = context.spawn(group, _deliver(runner, routed, clock), "queue")
        try:
            listeners.append(await serve_http(context, routes))
            context.ports["http"] = listeners[-1].port
            for name, address, handler, config in _doors(context, sending, logins, certificates, hold, people, rooms):
                if name == "submissions":
                    # Forwards of others need no certificate: they are taken while acme makes the first one.
                    if not await _certified(context, certificates):
                        break
                    keepers.append(context.spawn(group, certificates.follow(), "certificates"))
                listeners.append(await _open(handler, config, address))
                context.ports[name] = listeners[-1].port
            if not context.stop.is_set():
                context.health.ready()
                await context.stop.wait()
        finally:
            for listener in listeners:
                listener.close()
            async with asyncio.TaskGroup() as ending:
                ending.create_task(people.drain(settings.grace_seconds))
                ending.create_task(rooms.drain(settings.grace_seconds))
                ending.create_task(runner.stop(settings.grace_seconds))
            for keeper in keepers:
                if keeper.get_name() != "facts":
                    keeper.cancel()
            running.cancel()
            context.stop.set()  # `facts` ends by itself, with everything written
    logins.save()
    passwords.close()
    signer.close()
    resolver.close()


def _doors(
    context: Context,
    sending: Sending,
    logins: Logins,
    certificates: ServerCertificates,
    hold: Hold,
    people: Connections,
    rooms: Connections,
) -> list[tuple[str, str, Handler, EngineConfig]]:
    """The listeners: name, address, handler and limits; those that need a certificate last."""
    settings = context.settings

    def submission(*, implicit_tls: bool) -> EngineConfig:
        return EngineConfig(
            hostname=settings.hostname,
            size_limit=settings.max_message_size,
            tls=certificates.context,
            implicit_tls=implicit_tls,
            auth=("PLAIN", "LOGIN"),
            require_auth=True,
            dsn=True,
            requiretls=True,
            limits=True,
            command_timeout=settings.command_timeout,
            data_timeout=settings.data_timeout,
            session_timeout=settings.session_timeout,
            max_errors=settings.max_errors,
            max_recipients=settings.max_recipients,
            max_connections=settings.max_connections,
            max_connections_per_peer=settings.max_connections_per_peer,
            shared_peers=default_gateways(),
            events=context.events,
            bug=context.bug,
            connections=people,
        )

    forwards = EngineConfig(
        hostname=settings.hostname,
        # smtp-in has put its own lines above a message that was as large as is allowed.
        size_limit=settings.max_message_size + 64 * 1024,
        auth=("PLAIN",),
        auth_requires_tls=False,
        require_auth=True,
        extensions=("XMAILSTEAD 1",),
        dsn=True,
        requiretls=True,
        max_recipients=10_000,
        max_connections_per_peer=settings.max_connections,
        max_connections=settings.max_connections,
        session_timeout=86_400,
        events=context.events,
        bug=context.bug,
        connections=rooms,
    )
    return [
        ("forward", settings.forward_listen, Forwards(sending), forwards),
        (
            "submissions",
            settings.submissions_listen,
            Submission(sending, logins, "submissions", hold),
            submission(implicit_tls=True),
        ),
        (
            "submission",
            settings.submission_listen,
            Submission(sending, logins, "submission", hold),
            submission(implicit_tls=False),
        ),
    ]


async def _open(handler: Handler, config: EngineConfig, address: str) -> Listener:
    def made() -> Engine:
        return Engine(handler, config)

    if config.implicit_tls and config.tls is not None:
        return await listen_tls(made, address, config.tls, EngineDoor(config))
    return await listen(made, address)


async def _certified(context: Context, certificates: ServerCertificates) -> bool:
    """Wait for the first certificate; False where the room is stopped before it comes. Raises NoCertificate."""
    waiting = asyncio.create_task(certificates.wait())
    stopping = asyncio.create_task(context.stop.wait())
    try:
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            return False
        waiting.result()
        return True
    finally:
        waiting.cancel()
        stopping.cancel()


async def _deliver(runner: QueueRunner, routed: asyncio.Event, clock: Clock) -> None:
    """Run the queue once it is known which domains are ours, whether there is a relay, and what time it is."""
    await routed.wait()
    while clock.problem():  # noqa: ASYNC110 - nobody is told when a clock is set
        await asyncio.sleep(LOOK_SECONDS)
    await runner.run()


async def _follow(
    context: Context, directory: SnapshotDirectory, queue: Queue, runner: QueueRunner, routed: asyncio.Event
) -> None:
    """Send waiting mail where the directory says now, each time that it changes; `routed` after the first time."""
    seen = -1
    settings = context.settings
    while True:
        try:
            generation = directory.generation
            if generation != seen:
                moved = await queue.reroute(lambda address, kind: destination_of(address, directory, settings, kind))
                seen = generation
                if moved and routed.is_set():
                    await runner.refresh()
                routed.set()
        except DirectoryUnavailable:
            pass  # nothing is published yet: until then nobody knows what is ours
        await asyncio.sleep(FOLLOW_SECONDS if routed.is_set() else 0.1)
