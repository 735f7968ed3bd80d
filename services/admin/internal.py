"""What rooms tell admin: POST /v1/facts, each fact once; and bans, handed on to the other room where people log in.

    {"facts": [{"id", "kind", "account", "at", ...}]} → {"taken": n, "refused": [{"id", "error"}]}

Kinds: last-used; usage (bytes, messages); rehash (hash, replaces: the hash that was checked); ban (key, ban_kind,
until, reason). A fact that cannot be understood is named in the answer and not asked for again: a newer room must not
stop at an older admin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from services.admin.operations import BANNING
from services.admin.peers import PeerAway, Peers, PeerSaid
from services.directory.addresses import key
from services.directory.changes import Directories
from services.directory.errors import DirectoryError
from services.directory.models import Fact
from services.directory.publish import PublicationFailed
from services.runtime.internal_http import BadRequest, Request, Response, Routes
from services.runtime.process import Context

RETRY_SECONDS = 5.0
MOST_BANS = 10_000
KINDS = frozenset({"last-used", "usage", "rehash", "ban"})

Ban = dict[str, Any]


class BanExchange:
    """Hands each room's new bans to the other; its task is `run`. A ban that ends before it is told is forgotten."""

    def __init__(self, context: Context, peers: Peers) -> None:
        """Starts with nothing: rooms keep their own bans over restarts."""
        self._context, self._peers = context, peers
        self._waiting: dict[tuple[str, str, str], Ban] = {}  # room to tell, kind, key
        self._wake = asyncio.Event()

    def tell(self, from_room: str, ban: Ban) -> None:
        """`from_room` has banned: the other rooms shall too."""
        for room in BANNING:
            if room != from_room and len(self._waiting) < MOST_BANS:
                self._waiting[room, str(ban["kind"]), str(ban["key"])] = ban
        self._wake.set()

    def forget(self, banned: str) -> None:
        """The owner has lifted the ban: it is not told any more."""
        self._waiting = {name: ban for name, ban in self._waiting.items() if banned not in (name[2], ban["key"])}

    async def run(self) -> None:
        """Tell, again and again, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self._tell_all():
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def _tell_all(self) -> bool:
        away: set[str] = set()
        for name, ban in list(self._waiting.items()):
            room = name[0]
            if ban["until"] <= self._context.clock():
                self._waiting.pop(name, None)
            elif room not in away and self._waiting.get(name) is ban:
                try:
                    await self._peers.ask(room, "POST", "/v1/bans", ban)
                    done = True
                except PeerAway:
                    done = False
                    away.add(room)
                except PeerSaid as error:
                    self._context.log("warning", f"a ban on {name[2]} was not taken: {error}")
                    done = True
                if done and self._waiting.get(name) is ban:
                    del self._waiting[name]
        return not away


class Facts:
    """The handler."""

    def __init__(
        self,
        context: Context,
        directories: Directories,
        bans: BanExchange,
        closed: Callable[[], str] = lambda: "",
        counted: Callable[[], None] = lambda: None,
    ) -> None:
        """Facts go into `directories`, bans on to `bans`. `closed` says why none are taken now, "" where they are;
        `counted` is called when some mailbox's usage is another."""
        self._context, self._directories, self._bans, self._closed = context, directories, bans, closed
        self._counted = counted

    def routes(self) -> Routes:
        """The paths and who may ask them."""
        routes = Routes()
        routes.add("POST", "/v1/facts", self.take, allow=("imap", "smtp-out", "smtp-in"))
        return routes

    async def take(self, request: Request) -> Response:
        """POST /v1/facts."""
        if why := self._closed():
            return Response.error(503, why)  # rooms keep them: what is taken now would be lost with a roll back
        value = request.json()
        if not isinstance(value, dict) or not isinstance(value.get("facts"), list):
            raise BadRequest('the body must be {"facts": [...]}')
        facts: list[Fact] = []
        bans: dict[str, Ban] = {}
        refused: list[dict[str, str]] = []
        for given in value["facts"]:
            try:
                fact = _fact(given)
                if fact.kind == "ban":
                    bans[fact.identity] = _ban(given)
                facts.append(fact)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                identity = given.get("id", "") if isinstance(given, dict) else ""
                refused.append({"id": str(identity)[:64], "error": str(error)[:200] or "not a fact"})
        try:
            taken = await asyncio.to_thread(self._directories.take_facts, facts)
        except (DirectoryError, PublicationFailed) as error:
            return Response.error(503, str(error))
        for fact in taken:
            if fact.identity in bans:
                self._bans.tell(request.room, bans[fact.identity])
        if any(fact.kind == "usage" for fact in taken):
            self._counted()
        return Response.of({"taken": len(taken), "refused": refused})


def _fact(given: Any) -> Fact:
    """A fact as the directory takes it. Raises KeyError, TypeError, ValueError, OverflowError for what is none."""
    identity, kind, account, at = given["id"], given["kind"], given["account"], float(given["at"])
    if not (isinstance(identity, str) and 0 < len(identity) <= 64 and isinstance(account, str)):
        raise ValueError("id and account must be texts")
    if kind not in KINDS:
        raise ValueError(f"the kind {kind!r} is not known here")
    if not at >= 0:
        raise ValueError("at must be seconds since 1970")
    address = key(account)
    if kind == "usage":
        size, messages = int(given["bytes"]), int(given["messages"])
        if not (0 <= size < 1 << 62 and 0 <= messages < 1 << 62):
            raise ValueError("bytes and messages must be counts")
        return Fact(identity, kind, address, at, size=size, messages=messages)
    if kind == "rehash":
        return Fact(identity, kind, address, at, replaces=str(given["replaces"]), password_hash=str(given["hash"]))
    return Fact(identity, kind, address, at)


def _ban(given: Any) -> Ban:
    banned, kind = given["key"], given.get("ban_kind", "address")
    if not isinstance(banned, str) or not 0 < len(banned) <= 400 or kind not in ("address", "account", "pair"):
        raise ValueError("a ban has a key, and a ban_kind of address, account or pair")
    return {"key": banned, "kind": kind, "until": float(given["until"]), "reason": str(given.get("reason", ""))[:400]}
