"""Start and stop of the smtp-in room, and its one answer: GET /v1/status.

    {"smtp": {"connections"}, "lmtp": {"connections"}, "messages", "gateway", "hints": {"waiting", "lost"},
     "directory": generation or 0, "workers"}

and what `runtime/hold.py` answers. A hold closes port 25 alone: LMTP goes on, since what smtp-out hands over was
acknowledged long ago (it is smtp-out that holds the queue back, all but the mail gate's letter).

`messages` were taken since the start; `gateway` is the address that all peers, or all of one family, seem to come from,
"" where they do not. With SMTP_WORKERS above 1 the numbers are of all, and `workers` says how many are there now; see
`runtime/workers.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from services.directory.lookup import DirectoryUnavailable, SnapshotDirectory
from services.policy.score import Scale
from services.protocol import reply as replies
from services.runtime.dns import Lookup, Resolver
from services.runtime.gateways import default_gateways
from services.runtime.hold import Hold
from services.runtime.internal_http import Client, Request, Response, Routes, serving
from services.runtime.listener import Listener, listen, with_port
from services.runtime.process import Context
from services.runtime.tls import ContextNow, ServerCertificates
from services.runtime.values import MIB, Settings, WrongSetting
from services.runtime.workers import Channel, Workers, command, share
from services.smtp.engine import Engine
from services.smtp.gateway import Watch
from services.smtp.handler import EngineConfig
from services.smtp.proxy import ProxyEntrance
from services.smtp.trust import Forwarders, Peers
from services.smtp_in.answers import Answers
from services.smtp_in.deliver import Courier
from services.smtp_in.dsn import Told
from services.smtp_in.forward import Forwarder
from services.smtp_in.hints import Hints
from services.smtp_in.intake import Intake
from services.smtp_in.judging import Judging
from services.smtp_in.personal import Personal
from services.smtp_in.quota import Quotas
from services.smtp_in.rules import AccountRules
from services.smtp_in.scanners.choice import chosen
from services.storage.delivery import Deliveries, disk_reserve

LOOK_SECONDS = 5.0  # between two looks at what health tells
# Our own header lines and a signature are added to what was once taken under the limit.
INSIDE_MARGIN = MIB
# A worker ends within the grace itself; then it gives back what it holds open.
WORKERS_MARGIN = 3.0
ANY_NUMBER = 1_000_000_000  # limits that are meant for strangers and do not hold for smtp-out


async def serve(context: Context, lookup: Lookup | None = None, channel: Channel | None = None) -> None:
    """Serve until `context.stop`; raises OSError for a setting, folder or port that does not work.

    `lookup` answers in place of the resolver of the settings; for tests. `channel` is that of a worker beside the first
    process: it accepts mail from outside and nothing else. LMTP is one room's, next door, with a few connections that
    stay open, and over HTTP the room is asked as one: both are the first process's alone.
    """
    settings = context.settings
    count = 1 if settings.single_process else settings.smtp_workers
    gateways = default_gateways()
    forwarders, proxies = _named_peers(settings, gateways)
    certificates = ServerCertificates(settings.certs_dir, ask_clients=forwarders.by_certificate)
    await certificates.wait()
    deliveries = Deliveries(settings.mail_dir, clock=context.clock)
    await deliveries.start()
    imap = Client(context.room, context.secrets, "imap", settings.imap_url)
    hold = Hold(context, follows=channel is not None)
    others = Workers(context, count, command("services.smtp_in")) if count > 1 and channel is None else None
    if others is not None:
        context.settings = share(settings, count)
    judging = _judging(context, lookup, gateways, forwarders)
    parts = _assemble(context, deliveries, imap, certificates.context, hold, judging, gateways, forwarders, others)
    hold.when_it_begins(lambda _: parts.smtp.connections.dismiss(replies.UPDATING, hold.exempts))
    early: set[ProxyEntrance] = set()
    door = partial(ProxyEntrance, partial(Engine, parts.outside, parts.smtp), proxies, parts.smtp, early)
    try:
        async with contextlib.AsyncExitStack() as opened, asyncio.TaskGroup() as group:
            shared = count > 1
            smtp = await listen(lambda: Engine(parts.outside, parts.smtp), settings.smtp_listen, shared=shared)
            proxied = await listen(door, settings.smtp_proxy_listen, shared=shared)
            listeners = [smtp, proxied]
            context.ports.update(smtp=smtp.port, proxy=proxied.port)
            if channel is None:
                listeners.append(await _open_inside(context, parts, settings.lmtp_listen, hold, opened))
            running = [
                context.spawn(group, certificates.follow(), "following the certificate"),
                context.spawn(group, parts.hints.run(), "telling imap of new mail"),
                context.spawn(group, parts.watch(), "watching the directory"),
                context.spawn(group, hold.keep(), "hold"),
            ]
            if channel is not None:
                running.append(context.spawn(group, channel.run(context, parts.counted, hold.follow), "first process"))
            if others is not None:
                others.settings = replace(
                    context.settings,
                    smtp_listen=with_port(settings.smtp_listen, smtp.port),
                    smtp_proxy_listen=with_port(settings.smtp_proxy_listen, proxied.port),
                )
                hold.tell(others.hold)
                await others.hold(hold.lease)
                running.append(context.spawn(group, others.run(), "workers"))
            context.health.ready()
            await context.stop.wait()
            for listener in listeners:
                listener.close()
            for waiting in list(early):
                waiting.abort()
            grace = settings.grace_seconds
            await asyncio.gather(
                parts.smtp.connections.drain(grace),
                parts.lmtp.connections.drain(grace),
                *([others.stop(grace + WORKERS_MARGIN)] if others is not None else []),
            )
            for task in running:
                task.cancel()
            await parts.hints.flush()
    finally:
        if judging is not None:
            await judging.close()
        await deliveries.close()
        parts.answers.close()
        imap.close()


async def _open_inside(
    context: Context, parts: Parts, address: str, hold: Hold, opened: contextlib.AsyncExitStack
) -> Listener:
    """LMTP and HTTP, for the rooms next door."""
    routes = Routes()
    routes.add("GET", "/v1/status", parts.status, allow=("admin",))
    hold.add_to(routes)
    http = await opened.enter_async_context(serving(context, routes))
    lmtp = await listen(lambda: Engine(parts.inside, parts.lmtp), address)
    context.ports.update(http=http.port, lmtp=lmtp.port)
    return lmtp


@dataclass(slots=True)
class Parts:
    """What one process of the room is made of."""

    context: Context
    directory: SnapshotDirectory
    gateway: Watch
    hints: Hints
    outside: Intake
    inside: Intake
    smtp: EngineConfig
    lmtp: EngineConfig
    answers: Answers
    others: Workers | None = None

    def counted(self) -> dict[str, Any]:
        """What one process counts."""
        return {
            "connections": len(self.smtp.connections),
            "messages": self.outside.messages + self.inside.messages,
            "gateway": self.gateway.collapsed,
            "waiting": len(self.hints),
            "lost": self.hints.lost,
        }

    async def status(self, request: Request) -> Response:
        """GET /v1/status."""
        each = [self.counted(), *(self.others.statuses() if self.others is not None else [])]

        def total(name: str) -> int:
            return sum(int(one.get(name, 0)) for one in each)

        return Response.of(
            {
                "smtp": {"connections": total("connections")},
                "lmtp": {"connections": len(self.lmtp.connections)},
                "messages": total("messages"),
                "gateway": next((one["gateway"] for one in each if one.get("gateway")), ""),
                "hints": {"waiting": total("waiting"), "lost": total("lost")},
                "directory": self._generation(),
                "workers": sum(bool(one) for one in each),
            }
        )

    async def watch(self) -> None:
        """Keep health true about the directory until cancelled."""
        while True:
            if self._generation():
                self.context.health.ok("directory")
            else:
                self.context.health.fail("directory", "no list of addresses is published: mail waits at its senders")
            await asyncio.sleep(LOOK_SECONDS)

    def _generation(self) -> int:
        try:
            return self.directory.generation
        except DirectoryUnavailable:
            return 0


class Reserve:
    """Whether the mail disk has its reserve free; asked for every message, looked up once a second."""

    def __init__(self, context: Context) -> None:
        """Nothing was looked up yet."""
        self._context = context
        self._looked = float("-inf")
        self._free = True

    def __call__(self) -> bool:
        """True while there is room."""
        now = self._context.clock()
        # A clock that was set back must not freeze the answer.
        if not 0 <= now - self._looked < 1:
            self._looked = now
            try:
                self._free = disk_reserve(self._context.settings.mail_dir, self._context.settings)
            except OSError as error:
                self._context.log("error", f"cannot look at the mail disk: {error}")
                self._free = False
        return self._free


def _judging(
    context: Context, lookup: Lookup | None, gateways: frozenset[str], forwarders: Forwarders
) -> Judging | None:
    settings = context.settings
    if settings.mail_checks == "off":
        return None
    return Judging(
        context, SnapshotDirectory(settings.routing_dir), lookup or Resolver(settings.resolver),
        gateways=gateways, is_forwarder=forwarders.addresses.__contains__, scanners=chosen(settings),
    )  # fmt: skip


def administrator(directory: SnapshotDirectory) -> str:
    """The first enabled administrator, "" where there is none."""
    return next((each.address for each in directory.accounts() if each.administrator and each.enabled), "")


def _named_peers(settings: Settings, gateways: frozenset[str]) -> tuple[Forwarders, Peers]:
    """Whom the owner trusts to say where mail comes from. Raises WrongSetting."""
    try:
        return (
            Forwarders(settings.trusted_forwarders, settings.trusted_forwarder_certs, gateways),
            Peers(settings.proxy_peers),
        )
    except ValueError as error:
        raise WrongSetting(f"{error} (env/edge.env)") from None


def _assemble(
    context: Context,
    deliveries: Deliveries,
    imap: Client,
    tls: ContextNow,
    hold: Hold,
    judging: Judging | None,
    gateways: frozenset[str],
    forwarders: Forwarders,
    others: Workers | None,
) -> Parts:
    settings = context.settings
    directory = SnapshotDirectory(settings.routing_dir)
    forwarder = Forwarder(context, directory.is_local)
    hints = Hints(imap)
    scale = Scale.of(settings.junk_score, settings.reject_score)
    answers = Answers(context, forwarder, directory)
    rules = AccountRules(context, deliveries, forwarder, imap, answers)
    personal = Personal(context, scale, judging.junk if judging is not None else None, rules)
    quotas = Quotas(settings.personal_dir, context.clock)
    courier = Courier(
        deliveries, forwarder, imap, hints, context.events, context.clock, settings.mail_domain, settings.hostname,
        personal, Told(context, forwarder), quotas, lambda: administrator(directory),
        settings.forward_junk == "keep",
    )  # fmt: skip
    gateway, reserve = Watch(gateways), Reserve(context)
    parts = (context, directory, deliveries, courier, forwarder, gateway, reserve, quotas)
    outside = Intake(*parts, hold=hold, judging=judging)
    inside = Intake(*parts, inside=True)
    smtp = EngineConfig(
        hostname=settings.hostname,
        size_limit=settings.max_message_size,
        tls=tls,
        chunking=True,
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
        shared_peers=gateways,
        forwarders=forwarders or None,
        events=context.events,
        bug=context.bug,
    )
    lmtp = EngineConfig(
        hostname=settings.hostname,
        size_limit=settings.max_message_size + INSIDE_MARGIN,
        lmtp=True,
        auth=("PLAIN",),
        auth_requires_tls=False,  # a network of the two rooms' own
        require_auth=True,
        extensions=("XMAILSTEAD 1",),
        chunking=True,
        dsn=True,
        requiretls=True,
        session_timeout=settings.session_timeout,
        max_errors=ANY_NUMBER,
        max_recipients=ANY_NUMBER,
        max_idle_commands=ANY_NUMBER,
        max_connections=settings.max_connections,
        max_connections_per_peer=settings.max_connections,
        events=context.events,
        bug=context.bug,
    )
    return Parts(context, directory, gateway, hints, outside, inside, smtp, lmtp, answers, others)
