"""The short process that looks at a source, checks what it offers and publishes it: `python -m services.acme.task`.

An `Order` comes as JSON on stdin, an `Outcome` goes as JSON to stdout. Half a second once in hours, after which
cryptography's memory is the kernel's again. `perform` is the same without a process, for tests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from dataclasses import dataclass

import services
from services.acme.certificate import Certificate, Incomplete, Unusable, check, describe, read
from services.acme.sources import LETSENCRYPT, source_for
from services.runtime.values import Settings

# A Raspberry Pi 1 starts Python and cryptography in some 8 s; this is for a process that hangs, on a dead mount say.
SECONDS = 60


@dataclass(frozen=True, slots=True)
class Order:
    """What to do: the settings that name the source and the folders, and the time it is."""

    settings: Settings
    now: float
    letsencrypt: str = LETSENCRYPT


@dataclass(frozen=True, slots=True)
class Outcome:
    """`state`: installed, unchanged, incomplete (look again soon) or unusable; `problem` is a sentence for the owner.

    `certificate` is what is served now, also when the source offers nothing better.
    """

    state: str
    problem: str = ""
    certificate: Certificate | None = None


class TaskFailed(Exception):
    """The process did not end well: a fault of ours, or the machine is out of memory."""


def perform(order: Order) -> Outcome:
    """Take, check, publish."""
    from services.acme.install import publish, published  # with shutil and its compressors: not for the room itself

    settings = order.settings
    present = published(settings.certs_dir)
    try:
        pair = source_for(settings, order.letsencrypt).take(present, order.now)
        certificate = check(pair, settings.hostname, order.now)
        changed = publish(settings.certs_dir, pair, certificate.serial, order.now)
    except Unusable as error:
        state = "incomplete" if isinstance(error, Incomplete) else "unusable"
        return Outcome(state, str(error), _served(settings))
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return Outcome("unusable", f"the certificate could not be written:{where} {error.strerror}", _served(settings))
    return Outcome("installed" if changed else "unchanged", "", certificate)


def _served(settings: Settings) -> Certificate | None:
    """The certificate in use, whatever is wrong with it by now."""
    from services.acme.install import published

    present = published(settings.certs_dir)
    if present is None:
        return None
    try:
        return describe(read(present)[0][0])
    except Unusable:
        return None


async def in_process(order: Order) -> Outcome:
    """`perform` in a process of its own; raises TaskFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=os.path.dirname(services.__path__[0]),  # `-m` looks there first
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, errors = await process.communicate(json.dumps(dataclasses.asdict(order)).encode())
    except TimeoutError:
        raise TaskFailed(f"no answer within {SECONDS} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise TaskFailed(f"status {process.returncode}: {errors.decode(errors='replace')[-1500:]}")
    value = json.loads(output)
    if value["certificate"] is not None:
        value["certificate"] = Certificate(**{**value["certificate"], "names": tuple(value["certificate"]["names"])})
    return Outcome(**value)


def main() -> None:
    """One order."""
    value = json.load(sys.stdin)
    outcome = perform(Order(**{**value, "settings": Settings(**value["settings"])}))
    json.dump(dataclasses.asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
