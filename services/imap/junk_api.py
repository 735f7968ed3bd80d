"""What the admin page asks for a person about their own junk: what lies there, "not junk", and "this is junk".

Called by admin alone, which has checked who is logged in; the account is in the path. A message is named by mailbox,
UIDVALIDITY and UID as it was listed, or by its Message-ID. Moving it is the same as in a mail program: MOVE, and what
that teaches the junk filter (`teach`). Only the newest messages are looked at, so that a mailbox of 200,000 costs as
much as one of 200.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from services.directory.addresses import key
from services.directory.lookup import AuthDirectory, DirectoryUnavailable
from services.imap.accounts import Account, Accounts
from services.imap.lesson import Lesson
from services.message.text import header_text
from services.policy.junk import LEAST_TRAINED, Trained
from services.runtime.events import new_trace_id
from services.runtime.internal_http import BadRequest, Request, Response, Routes
from services.runtime.process import Context
from services.storage.account import AccountStore
from services.storage.errors import Busy, LimitReached, MailboxMissing, StorageError
from services.storage.folder_names import INBOX
from services.storage.mailbox import Mailbox
from services.storage.paths import account_parts
from services.storage.personal import JUNK_MODEL

Place = Literal["junk", "inbox"]
Teach = Callable[[str, Sequence[Lesson]], None]  # `Trainer.take`

JUNK, JUNK_USE = "Junk", "\\Junk"
MOST_LISTED = 200
# A Message-ID is looked for among so many of the newest.
MOST_SEARCHED = 2000
MOST_TEXT = 300
_COLUMNS = ("size", "sent", "h_from", "h_subject", "h_message_id", "preview")


@dataclass(frozen=True, slots=True)
class Named:
    """Which message: by its place, or by its Message-ID where `uid` is 0."""

    uidvalidity: int
    uid: int
    message_id: str


class JunkApi:
    """The endpoints."""

    def __init__(self, context: Context, directory: AuthDirectory, accounts: Accounts, teach: Teach) -> None:
        self._context, self._directory, self._accounts, self._teach = context, directory, accounts, teach

    def add_to(self, routes: Routes) -> None:
        """All of them."""
        routes.add("GET", "/v1/junk", self._memory, allow=("admin",))
        routes.add("GET", "/v1/accounts/{address}/recent", self._recent, allow=("admin",))
        routes.add("POST", "/v1/accounts/{address}/not-junk", self._not_junk, allow=("admin",))
        routes.add("POST", "/v1/accounts/{address}/junk", self._junk, allow=("admin",))

    async def _memory(self, request: Request) -> Response:
        """What the junk filter has learned for all accounts, or for `?account=`. Times in seconds, 0: no model yet."""
        wanted = request.query.get("account")
        try:
            addresses = [key(wanted)] if wanted else [account.address for account in self._directory.accounts()]
            if wanted and self._directory.account(addresses[0]) is None:
                return Response.error(404, "no such account")
        except DirectoryUnavailable as error:
            return Response.error(503, str(error))
        found: list[dict[str, object]] = []
        for address in addresses:
            try:
                account = await self._accounts.open(address)
            except (StorageError, OSError) as error:
                self._context.log("warning", f"junk memory of {address}: {error}")
                continue
            try:
                found.append(await account.run(lambda: self._learned(account.address, account.store)))  # noqa: B023
            finally:
                self._accounts.release(account)
        return Response.of({"accounts": found})

    def _learned(self, address: str, store: AccountStore) -> dict[str, object]:
        of = store.junk.sorted()
        path = os.path.join(self._context.settings.personal_dir, *account_parts(address), JUNK_MODEL)
        try:
            status = os.stat(path)
            made, octets = status.st_mtime, status.st_size
        except OSError:
            made, octets = 0.0, 0
        return {
            "account": address, "junk": of.junk, "good": of.good, "known": store.junk.known(), "least": LEAST_TRAINED,
            "used": Trained(*of).enough, "made": made, "octets": octets, "unpublished": store.junk.unpublished(),
        }  # fmt: skip

    async def _recent(self, request: Request) -> Response:
        """`?place=junk|inbox&limit=`: the newest messages there, newest first."""
        place = request.query.get("place", "junk")
        limit = request.query.get("limit", "50")
        if place not in ("junk", "inbox"):
            raise BadRequest("place is junk or inbox")
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MOST_LISTED):
            raise BadRequest(f"limit is 1 to {MOST_LISTED}")
        account = await self._account(request)
        if isinstance(account, Response):
            return account
        try:
            return Response.of(await account.run(lambda: _listed(account.store, place, int(limit))))
        except MailboxMissing:
            return Response.of({"mailbox": JUNK, "uidvalidity": 0, "count": 0, "messages": []})
        finally:
            self._accounts.release(account)

    async def _not_junk(self, request: Request) -> Response:
        """`{"uidvalidity", "uid"}` or `{"message_id"}`: out of Junk into INBOX."""
        return await self._move(request, "junk", "inbox")

    async def _junk(self, request: Request) -> Response:
        """The same, out of INBOX into Junk."""
        return await self._move(request, "inbox", "junk")

    async def _move(self, request: Request, source: Place, target: Place) -> Response:
        named = _named(request.json())
        account = await self._account(request)
        if isinstance(account, Response):
            return account
        try:
            moved = await account.run(lambda: _moved(account.store, named, source, target))
        except MailboxMissing:
            moved = None
        except (LimitReached, OSError) as error:
            return Response.error(503, f"it could not be moved: {error}")
        finally:
            self._accounts.release(account)
        if moved is None:
            return Response.error(404, "the message is not there any more")
        mailbox, uid = moved
        self._teach(account.address, [Lesson("junk" if target == "junk" else "good", mailbox, (uid,))])
        self._context.events.emit(
            "move", new_trace_id(), account=account.address, mailbox=source, target=mailbox, messages=1, via="page",
            message_id=named.message_id,
        )  # fmt: skip
        return Response.of({"mailbox": mailbox, "uid": uid})

    async def _account(self, request: Request) -> Account | Response:
        """The open account; whoever gets it releases it."""
        address = key(request.params["address"])
        if self._directory.account(address) is None:
            return Response.error(404, "no such account")
        try:
            return await self._accounts.open(address)
        except Busy:
            return Response.error(503, "the account is in use by another process; try again")
        except (StorageError, OSError) as error:
            return Response.error(503, f"the mailbox cannot be opened: {error}")


def _named(body: object) -> Named:
    given = body if isinstance(body, dict) else {}
    uidvalidity, uid, message_id = (given.get(name) for name in ("uidvalidity", "uid", "message_id"))
    if isinstance(uid, int) and isinstance(uidvalidity, int) and 0 < uid < 1 << 32:
        return Named(uidvalidity, uid, message_id if isinstance(message_id, str) else "")
    if isinstance(message_id, str) and message_id.strip():
        return Named(0, 0, message_id.strip()[:1000])
    raise BadRequest("uidvalidity and uid, or message_id, is needed")


def _listed(store: AccountStore, place: str, limit: int) -> dict[str, object]:
    mailbox = store.mailbox(_name(store, place))
    uids = mailbox.uids[-limit:]
    messages = []
    for uid, size, sent, sender, subject, message_id, preview in mailbox.answers(uids, _COLUMNS):
        at = mailbox.index(uid)
        if at < 0:
            continue
        messages.append(
            {
                "uid": uid,
                "from": _field(sender),
                "subject": _field(subject),
                "message_id": _field(message_id),
                "preview": str(preview or "")[:MOST_TEXT],
                "sent": sent,
                "received": mailbox.dates[at],
                "size": size,
            }
        )
    messages.reverse()
    return {
        "mailbox": mailbox.name, "uidvalidity": mailbox.uidvalidity, "count": len(mailbox.uids), "messages": messages,
    }  # fmt: skip


def _moved(store: AccountStore, named: Named, source: Place, target: Place) -> tuple[str, int] | None:
    """(the mailbox, the UID there); None where the message is not in `source`. Raises MailboxMissing, OSError."""
    mailbox = store.mailbox(_name(store, source))
    uid = named.uid if named.uid and named.uidvalidity == mailbox.uidvalidity else _found(mailbox, named)
    if not uid or mailbox.index(uid) < 0:
        return None
    name = _name(store, target)
    try:
        copied = mailbox.move([uid], name)
    except MailboxMissing:
        if target != "junk":
            raise
        store.create(name, JUNK_USE)
        copied = mailbox.move([uid], name)
    return (name, copied.target[0]) if copied.target else None


def _found(mailbox: Mailbox, named: Named) -> int:
    """The newest UID with the Message-ID, 0 for none."""
    wanted = named.message_id.strip("<>")
    if not wanted:
        return 0
    rows = list(mailbox.answers(mailbox.uids[-MOST_SEARCHED:], ("h_message_id",)))
    return next((uid for uid, field in reversed(rows) if _field(field).strip("<>") == wanted), 0)


def _name(store: AccountStore, place: str) -> str:
    """The mailbox of `place`: the one with the special use (RFC 6154), else the one where smtp-in delivers junk."""
    if place == "inbox":
        return INBOX
    marked = [each.name for each in store.mailboxes() if each.special_use == JUNK_USE]
    return JUNK if JUNK in marked or not marked else marked[0]


def _field(raw: bytes | None) -> str:
    """A raw field's value as a person reads it, bounded."""
    if not raw:
        return ""
    value = raw[: MOST_TEXT * 8].partition(b":")[2]
    return header_text(value.strip()).strip()[:MOST_TEXT]
