"""The house's own words as a person reads them: rooms, kinds of events, states, the menu.

What the rooms send are names for machines; one that is not here (a newer room's) is shown as it is.
"""

from __future__ import annotations

from services.admin.text import _, mark

# (heading, ((path, name), ...)); the first group has no heading.
MENU = (
    ("", (("/", mark("Home")),)),
    (mark("Mail"), (("/trace", mark("Trace")), ("/verdicts", mark("Verdicts")), ("/queue", mark("Queue")))),
    (
        mark("Addresses"),
        (("/accounts", mark("Accounts")), ("/aliases", mark("Aliases")), ("/domains", mark("Domains"))),
    ),
    (mark("Server"), (("/updates", mark("Updates")), ("/bans", mark("Bans")), ("/changes", mark("Changes")))),
    (mark("Yours"), (("/me", mark("My mail")), ("/me/junk", mark("Junk mail")), ("/me/rules", mark("Rules")))),
)
# What everybody with an account has.
OWN_MENU = (("", MENU[-1][1]),)

ROOMS = {
    "smtp-in": mark("Receives mail"),
    "smtp-out": mark("Sends mail"),
    "imap": mark("Keeps mail, serves mail clients"),
    "dkim": mark("Signs mail"),
    "acme": mark("Certificates"),
    "admin": mark("This page, accounts"),
    "updater": mark("Watches for updates"),
    "unbound": mark("Looks names up (DNS)"),
    "docker-filter": mark("Guards the Docker socket"),
}

STATES = {
    # of a room
    "ok": mark("well"), "starting": mark("still starting"), "failing": mark("not well"), "away": mark("no answer"),
    # of a message or recipient in the queue
    "waiting": mark("waiting"), "in flight": mark("being sent"), "held": mark("held back"),
    "delivered": mark("delivered"), "deferred": mark("tried again later"), "failed": mark("failed"),
    "queued": mark("waiting"),
    # of an event
    "accept": mark("accepted"), "reject": mark("refused"), "defer": mark("put off"), "junk": mark("junk"),
    "error": mark("error"), "info": mark("noted"),
    # of a container
    "running": mark("running"), "exited": mark("stopped"), "restarting": mark("restarting"), "created": mark("created"),
    "paused": mark("paused"), "healthy": mark("healthy"), "unhealthy": mark("unhealthy"),
    # of an image against its registry
    "current": mark("up to date"), "newer": mark("a newer one is there"), "unknown": mark("not known"),
    "pulled": mark("a newer one is on this machine"),
    "local": mark("built here"),
    # of an update, its steps and its plan
    "committed": mark("done"), "rolled-back": mark("rolled back"), "nothing": mark("nothing to do"),
    "off": mark("off"), "watch": mark("watch only"), "update": mark("update by itself"),
    # of the certificate
    "self-signed": mark("made by this server"), "letsencrypt": mark("from Let's Encrypt"), "manual": mark("your own"),
    # of a DNS record
    "required": mark("required"), "recommended": mark("recommended"), "elsewhere": mark("set elsewhere"),
}  # fmt: skip

KINDS = {
    "connect": mark("Connection"), "disconnect": mark("Connection ended"), "tls": mark("Encryption"),
    "helo": mark("Introduction"), "login": mark("Log-in"), "mail": mark("Sender"), "rcpt": mark("Recipient"),
    "data": mark("Message"), "delivered": mark("Delivery to the mailbox"), "forwarded": mark("Forwarding"),
    "submitted": mark("Message handed in"), "signed": mark("DKIM signature"), "queued": mark("Taken into the queue"),
    "attempt": mark("Attempt to send"), "bounced": mark("Report to the sender"), "dropped": mark("Dropped"),
    "ban": mark("Ban"), "unban": mark("Ban lifted"), "certificate": mark("Certificate"), "key": mark("DKIM key"),
    "admin-change": mark("Change"), "update-check": mark("Look for updates"), "bug": mark("A fault of this server"),
    "client": mark("Mail client"), "idle-notified": mark("Told the mail client"), "indexed": mark("Indexed"),
    "quota": mark("Letter about a full mailbox"), "forward-budget": mark("Forwards of the day"),
    "move": mark("Moved"), "junk-learned": mark("Junk filter taught"), "answered": mark("Answer while away"),
    "hold": mark("Held for an update"), "release": mark("Goes on after an update"), "update": mark("Update"),
}  # fmt: skip

# What is done in an update, as its plan and its journal say it.
STEPS = {
    "check": mark("look"), "pull": mark("download"), "snapshot": mark("keep a copy of the accounts"),
    "hold": mark("let mail wait outside"), "create": mark("make the new containers"), "replace": mark("replace"),
    "health": mark("wait until all is healthy"), "gate": mark("send letters through"), "commit": mark("it stays"),
    "release": mark("let mail in again"),
    "settle": mark("clear away"), "remove": mark("remove the old containers"), "clean": mark("clear away"),
    "keep": mark("keep the old images"), "unknown": mark("not known"), "rooms": mark("all rooms answer"),
    "account": mark("an account to try with"), "receive": mark("a letter in"), "send": mark("a letter out"),
    "read": mark("both read"),
}  # fmt: skip

# Fields of events.
FIELDS = {
    "peer": mark("from"), "sender": mark("sender"), "recipient": mark("recipient"), "recipients": mark("recipients"),
    "remote": mark("server"), "account": mark("account"), "login": mark("user name"),
    "mechanism": mark("log-in method"),
    "helo": mark("calls itself"), "size": mark("size"), "message_id": mark("Message-ID"), "subject": mark("subject"),
    "version": mark("version"), "cipher": mark("cipher"), "listener": mark("port"), "domain": mark("domain"),
    "queue_id": mark("queue"), "ms": mark("took"), "seconds": mark("took"), "messages": mark("messages"),
    "port": mark("port"), "next": mark("next attempt"),
    "destinations": mark("destinations"), "report": mark("report"), "key": mark("who"), "by": mark("by"),
    "status": mark("status"), "rules": mark("rules"), "mailbox": mark("folder"), "selector": mark("selector"),
    "via": mark("through"), "conn": mark("connection"), "target": mark("target"), "address": mark("address"),
    "serial": mark("serial number"), "until": mark("until"), "ban_kind": mark("kind"), "stage": mark("step"),
    "attempts": mark("attempts"), "tls": mark("encryption"), "protocol": mark("protocol"), "service": mark("service"),
}  # fmt: skip


def room_word(room: str) -> str:
    """What a room does, in a few words; "" for one that is not known."""
    return _(ROOMS[room]) if room in ROOMS else ""


def state_word(state: str) -> str:
    """A state or an outcome."""
    return _(STATES[state]) if state in STATES else str(state)


def kind_word(kind: str) -> str:
    """What kind of event it was."""
    return _(KINDS[kind]) if kind in KINDS else str(kind)


def door_word(via: str) -> str:
    """By which door a change came."""
    return {"page": _("page"), "command line": _("command line")}.get(via, via)


def step_word(step: str) -> str:
    """A step of an update; `undo STEP` where it was taken back."""
    if step.startswith("undo "):
        return _("taken back: {step}").format(step=step_word(step[5:]))
    return _(STEPS[step]) if step in STEPS else step


def action_word(action: str) -> str:
    """What a plan does with a service."""
    return {"replace": _("replace"), "keep": _("leave as it is")}.get(action, _("not known"))


def field_word(name: str) -> str:
    """What a field of an event says."""
    return _(FIELDS[name]) if name in FIELDS else name.replace("_", " ")
