"""Publishes a pair: copies into a new generation folder, then `current` is swapped to it by rename.

    <certs_dir>/<generation>/fullchain.pem  0644     <certs_dir>/current → <generation>
                             privkey.pem    0640     (and ca.pem 0644 where the CA is our own)

Readers in other rooms are of the group of `certs_dir`; this room runs as uid 0 without capabilities and cannot change
owners, so the folder's setgid bit hands the group down. A reader follows `current` once and opens both files below it:
it never sees a new chain with an old key. Every file is durable before the swap; a power cut at any step leaves the old
generation served and at most a folder that nobody names, removed by the next installation.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import ssl
import time

from services.acme.certificate import Pair, Unusable
from services.storage.atomic import fsync_folder, replace_symlink, write_durable

_GENERATION = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{1,8}(\.[0-9]+)?")


def published(folder: str) -> Pair | None:
    """The pair that `current` names, or None where there is none that can be read."""
    current = os.path.join(folder, "current")
    try:
        with (
            open(os.path.join(current, "fullchain.pem"), "rb") as chain,
            open(os.path.join(current, "privkey.pem"), "rb") as key,
        ):
            pair = Pair(chain.read(), key.read(), origin="the certificate in use")
    except OSError:
        return None
    with contextlib.suppress(OSError), open(os.path.join(current, "ca.pem"), "rb") as ca:
        return Pair(pair.chain, pair.key, ca.read(), pair.origin)
    return pair


def publish(folder: str, pair: Pair, serial: str, now: float) -> bool:
    """Make `pair` the current one; False when it is already. Raises Unusable when OpenSSL cannot serve it, OSError."""
    present = published(folder)
    if present is not None and (present.chain, present.key, present.ca) == (pair.chain, pair.key, pair.ca):
        return False
    # Before the swap, so that the generation it replaces stays: a reader may have followed `current` just now.
    _remove_others(folder)
    generation = _new_generation(folder, serial, now)
    try:
        _write(os.path.join(folder, generation), pair)
        fsync_folder(folder)
        _serve(os.path.join(folder, generation), pair.origin)
    except BaseException:
        shutil.rmtree(os.path.join(folder, generation), ignore_errors=True)
        raise
    replace_symlink(os.path.join(folder, "current"), generation)
    return True


def _new_generation(folder: str, serial: str, now: float) -> str:
    """Make an empty folder of a name that sorts by time and was never used: readers compare names, not contents."""
    stem = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{serial[-8:].lower()}"
    name, number = stem, 1
    while True:
        try:
            # No chmod: without CAP_FSETID it would take away the setgid bit that mkdir inherits.
            os.mkdir(os.path.join(folder, name), 0o750)
        except FileExistsError:
            number += 1
            name = f"{stem}.{number}"
        else:
            return name


def _write(folder: str, pair: Pair) -> None:
    write_durable(os.path.join(folder, "privkey.pem"), pair.key, 0o640)
    write_durable(os.path.join(folder, "fullchain.pem"), pair.chain, 0o644)
    if pair.ca:
        write_durable(os.path.join(folder, "ca.pem"), pair.ca, 0o644)


def _serve(folder: str, origin: str) -> None:
    """Load the pair as every listener will, so that what they cannot load is never named `current`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(os.path.join(folder, "fullchain.pem"), os.path.join(folder, "privkey.pem"))
    except ssl.SSLError as error:
        raise Unusable(f"{origin}: OpenSSL does not serve this certificate ({error.reason or error})") from None


def _remove_others(folder: str) -> None:
    """Delete all generations but the current one: the one before it has had its time, and cut-off ones no use."""
    try:
        current = os.readlink(os.path.join(folder, "current"))
    except OSError:
        current = ""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if _GENERATION.fullmatch(name) and name != current:
            shutil.rmtree(path, ignore_errors=True)
        elif name.startswith("current.") and os.path.islink(path):  # a swap that a power cut stopped before the rename
            os.unlink(path)
