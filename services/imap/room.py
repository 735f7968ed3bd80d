"""The imap room as it runs: what is opened in which order, and how it ends."""

from __future__ import annotations

import asyncio
import os
from functools import partial

from services.directory.lookup import SnapshotDirectory
from services.directory.passwords import Passwords
from services.imap.accounts import Accounts
from services.imap.api import Api
from services.imap.connection import Connection
from services.imap.desk import Desk
from services.imap.door import Door
from services.imap.gate import Gate
from services.imap.junk_api import JunkApi
from services.imap.peers import Peers
from services.imap.trainer import Trainer
from services.imap.usage import Usages
from services.imap.watch import Watches
from services.runtime.facts import FactQueue
from services.runtime.gateways import default_gateways
from services.runtime.hold import Hold
from services.runtime.internal_http import serve_http
from services.runtime.listener import Listener, listen, listen_tls
from services.runtime.process import Context
from services.runtime.tls import ServerCertificates
from services.storage.notifier import LocalNotifier

FACTS_FILE = "facts.jsonl"


async def serve(context: Context) -> None:
    """Run until `context.stop`."""
    settings = context.settings
    os.makedirs(settings.room_dir, exist_ok=True)
    certificates = ServerCertificates(settings.certs_dir)
    await certificates.wait()
    directory = SnapshotDirectory(settings.auth_dir)
    passwords = Passwords()
    facts = FactQueue(context, os.path.join(settings.room_dir, FACTS_FILE))
    accounts = Accounts(context, directory, LocalNotifier())
    hold = Hold(context)
    gateways = default_gateways()
    gate = Gate(context, directory, passwords, facts, gateways)
    peers = Peers(settings.max_connections, settings.max_connections_per_peer, gateways)
    listeners: list[Listener] = []
    async with asyncio.TaskGroup() as group:
        watches = Watches(context, accounts, group)
        trainer = Trainer(context, directory, accounts)
        usages = Usages(context, directory, accounts, facts)
        api = Api(context, directory, accounts, gate, watches, peers, usages.changed)
        desk = Desk(
            context=context,
            accounts=accounts,
            gate=gate,
            watches=watches,
            peers=peers,
            group=group,
            loop=asyncio.get_running_loop(),
            tls=certificates.context,
            max_message_size=settings.max_message_size,
            max_errors=settings.max_errors,
            login_timeout=settings.imap_login_timeout,
            idle_timeout=settings.imap_idle_timeout,
            hold=hold,
            teach=trainer.take,
        )
        await api.provision_all()
        keepers = [
            context.spawn(group, work, name)
            for name, work in (
                ("certificates", certificates.follow()),
                ("facts", facts.run()),
                ("open accounts", accounts.keep()),
                ("bans", gate.keep()),
                ("hold", hold.keep()),
                ("rescan", watches.rescan()),
                ("time limits", peers.sweep()),
                ("junk filter", trainer.run()),
                ("quotas", usages.run()),
                ("account folders", api.follow()),
                ("rules", api.rules.follow()),
            )
        ]
        try:
            routes = api.routes()
            hold.add_to(routes)
            JunkApi(context, directory, accounts, trainer.take).add_to(routes)
            listeners.append(await serve_http(context, routes))
            context.ports["http"] = listeners[-1].port
            connection = partial(Connection, desk)
            listeners.append(await listen_tls(connection, settings.imaps_listen, certificates.context, Door(desk)))
            context.ports["imaps"] = listeners[-1].port
            listeners.append(await listen(connection, settings.imap_listen))
            context.ports["imap"] = listeners[-1].port
            context.health.ready()
            await context.stop.wait()
        finally:
            for listener in listeners:
                listener.close()
            await peers.drain(settings.grace_seconds)
            watches.close()
            for keeper in keepers:
                if keeper.get_name() != "facts":
                    keeper.cancel()
            context.stop.set()  # `facts` ends by itself, with everything written
    await trainer.drain()
    gate.save()
    await accounts.close()
    passwords.close()
