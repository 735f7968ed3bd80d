"""Every folder of the stack: its volume, where the rooms mount it, whose it is, and why its mode is so.

Pure values. `apply.py` holds the volumes to this table and `backup` finds its way by it. The image has none of these
folders: Docker would give a volume that is still empty their owner each time a container is made, also after `setup`
has given it to MAIL_UID.
"""

from __future__ import annotations

from dataclasses import dataclass

ROOM_UIDS = {
    "smtp-in": 10001,
    "smtp-out": 10002,
    "dkim": 10004,
    "acme": 0,  # without capabilities: root by name only, because certbot's folders open to uid 0 alone
    "admin": 10006,
    "updater": 10007,
    "unbound": 10008,
    "clamav": 10009,
    "rspamd": 10010,
    "spamassassin": 10011,
    "docker-filter": 0,  # without capabilities: the Docker socket belongs to root
}
MAIL_UID = MAIL_GID = 5000  # docker-mailserver's, so that its mail can be mounted as it is
TLS_GID = 5002
AUTH_GID = 5003  # who may read the snapshot with password hashes
ROOMS = ("smtp-in", "smtp-out", "imap", "dkim", "acme", "admin", "updater", "docker-filter")
# Not rooms of ours: Debian's programs, which share no secret with anybody.
WITHOUT_SECRETS = ("unbound", "rspamd", "spamassassin", "clamav")
# It keeps nothing but its record.
WITHOUT_FOLDER = frozenset({"docker-filter"})
# A stack's own numbers: mail that belonged to one of these would be open to the wrong room.
RESERVED_UIDS = frozenset(ROOM_UIDS.values()) | {TLS_GID, AUTH_GID}


@dataclass(frozen=True, slots=True)
class Place:
    """A folder: `volume` is the volume's name in compose.yaml, `inside` a folder in it ("" = its root).

    `path` is where the rooms mount the volume; "" for a volume that only `setup` mounts.
    """

    volume: str
    path: str
    uid: int
    gid: int
    mode: int
    inside: str = ""


def places(mail_uid: int = MAIL_UID, mail_gid: int = MAIL_GID) -> tuple[Place, ...]:
    """All folders, parents before children."""
    admin = ROOM_UIDS["admin"]
    here = "/var/lib/mailstead"
    fixed = (
        # 2710: smtp-in (in the mail group) passes through to the folders it may add to, but cannot list the accounts.
        Place("mail", "/var/mail", mail_uid, mail_gid, 0o2710),
        # setgid: what smtp-in stages already has the mail group, so that imap can read it where it is renamed to.
        Place("mail", "/var/mail", ROOM_UIDS["smtp-in"], mail_gid, 0o2700, ".incoming"),
        Place("imap-state", f"{here}/imap", mail_uid, mail_gid, 0o700),
        Place("spool", "/var/spool/mailstead", ROOM_UIDS["smtp-out"], ROOM_UIDS["smtp-out"], 0o700),
        Place("admin", f"{here}/admin", admin, admin, 0o700),
        # Without secrets: who may read it is decided by who mounts it, its readers have no group in common.
        Place("routing", f"{here}/routing", admin, admin, 0o755),
        # setgid: the generations that admin publishes are the group's to read, and nobody else's.
        Place("auth", f"{here}/auth", admin, AUTH_GID, 0o2750),
        # What imap knows of each account and smtp-in needs at delivery; in the group that both are in.
        Place("personal", f"{here}/personal", mail_uid, mail_gid, 0o2750),
        Place("certs", f"{here}/certs", ROOM_UIDS["acme"], TLS_GID, 0o2750),
        Place("dkim", f"{here}/dkim", ROOM_UIDS["dkim"], ROOM_UIDS["dkim"], 0o700),
        *(Place(name, f"/var/lib/{name}", ROOM_UIDS[name], ROOM_UIDS[name], 0o700) for name in WITHOUT_SECRETS),
    )
    # admin's group by setgid: admin indexes every room's record, and no room can read another's.
    events = tuple(
        Place(f"events-{room}", f"{here}/events/{room}", uid_of(room, mail_uid), admin, 0o2750) for room in ROOMS
    )
    own = tuple(
        Place(f"room-{room}", f"{here}/room", uid_of(room, mail_uid), gid_of(room, mail_gid), 0o700)
        for room in ROOMS
        if room not in WITHOUT_FOLDER
    )
    return (*fixed, *events, *own, *secret_places(mail_uid, mail_gid))


def secret_places(mail_uid: int = MAIL_UID, mail_gid: int = MAIL_GID) -> tuple[Place, ...]:
    """The volume with all secrets, and each room's with its own; a room may read its own and change none."""
    return (
        Place("secrets", "", 0, 0, 0o700),
        *(
            Place(f"secrets-{room}", "/run/mailstead/secrets", uid_of(room, mail_uid), gid_of(room, mail_gid), 0o500)
            for room in ROOMS
        ),
    )


def uid_of(room: str, mail_uid: int = MAIL_UID) -> int:
    """The uid that `room` runs as; imap's is the mail's owner."""
    return mail_uid if room == "imap" else ROOM_UIDS[room]


def gid_of(room: str, mail_gid: int = MAIL_GID) -> int:
    """The primary group that `room` runs as."""
    return mail_gid if room == "imap" else ROOM_UIDS[room]
