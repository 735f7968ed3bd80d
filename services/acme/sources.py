"""Where a certificate comes from, one class per SSL_TYPE.

`glance` is asked every few seconds in the room: it looks at sizes and times and returns a token that differs
when anything may have changed; it reads no file and never raises. `take` runs in the short process and returns the pair
to serve. A source reads; only `SelfSigned` makes anything, in a folder of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from services.acme import self_signed
from services.acme.certificate import Incomplete, Pair, Unusable, covers, names_of, read
from services.runtime.values import Settings, WrongSetting

LETSENCRYPT = "/etc/letsencrypt"  # where compose.yaml mounts it; certbot's own path, so that its links resolve


class Source(Protocol):
    """One way to get a certificate."""

    def glance(self) -> str:
        """A token that changes when the source may have something else to offer."""

    def take(self, published: Pair | None, now: float) -> Pair:
        """The pair to serve; `published` is what is served now. Raises Unusable, or Incomplete for "look again"."""


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """A local CA and its server certificate; the published copy is the only one, so there is nothing to watch."""

    folder: str
    hostname: str
    domain: str

    def glance(self) -> str:
        """The names: they change with a setting, and renewal is a matter of time, not of files."""
        return " ".join(self_signed.names_for(self.hostname, self.domain))

    def take(self, published: Pair | None, now: float) -> Pair:
        """What is published while it lasts, else a new one."""
        names = self_signed.names_for(self.hostname, self.domain)
        ca = self_signed.read_ca(self.folder)
        if published is not None and ca and self_signed.is_current(published, ca, names, now):
            return Pair(published.chain, published.key, ca, "the local CA")
        return self_signed.make(self.folder, self.hostname, self.domain, now)


@dataclass(frozen=True, slots=True)
class LetsEncrypt:
    """certbot's folder, mounted read-only: `live/<lineage>/{fullchain,privkey}.pem`, links into `archive`."""

    hostname: str
    root: str = LETSENCRYPT

    def glance(self) -> str:
        """What each lineage's two links lead to.

        certbot writes new files into `archive` and moves the links one after the other. Copies in place of links work
        too: their times move.
        """
        return "\n".join(
            f"{lineage} {_look(self._path(lineage, 'fullchain'))} {_look(self._path(lineage, 'privkey'))}"
            for lineage in self._lineages()
        )

    def take(self, published: Pair | None, now: float) -> Pair:
        """The lineage that covers the hostname and lasts longest; raises Unusable with what is there instead."""
        lineages = self._lineages()
        if not lineages:
            raise Unusable(self._why_empty())
        found: list[tuple[bool, float, Pair]] = []
        waiting: Incomplete | None = None
        others: list[str] = []
        for lineage in lineages:
            try:
                pair = _read_pair(self._path(lineage, "fullchain"), self._path(lineage, "privkey"))
                leaf = read(pair)[0][0]
            except Incomplete as error:
                waiting = error
            except Unusable as error:
                others.append(str(error))
            else:
                names = names_of(leaf)
                if covers(names, self.hostname):
                    # Of two that last equally long the one that names the host wins over the wild card: it was meant.
                    found.append((self.hostname in names, leaf.not_valid_after_utc.timestamp(), pair))
                else:
                    others.append(f"{lineage} is for {', '.join(names) or 'no name'}")
        if found:
            return max(found, key=lambda each: (each[1], each[0]))[2]
        if waiting is not None:
            raise waiting
        raise Unusable(
            f"no certificate in {self.root}/live is for {self.hostname}: {'; '.join(others)}. "
            f"Get one (certbot certonly -d {self.hostname}), or set MAIL_HOSTNAME"
        )

    def _path(self, lineage: str, name: str) -> str:
        return os.path.join(self.root, "live", lineage, f"{name}.pem")

    def _lineages(self) -> list[str]:
        folder = os.path.join(self.root, "live")
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            return []
        return [entry for entry in entries if os.path.lexists(self._path(entry, "fullchain"))]

    def _why_empty(self) -> str:
        folder = os.path.join(self.root, "live")
        try:
            os.listdir(folder)
        except FileNotFoundError:
            return f"{folder} is not there: mount the host's /etc/letsencrypt, the whole of it, read-only"
        except OSError as error:
            return f"{folder} cannot be read as uid {os.geteuid()}: {error.strerror}; certbot keeps it for root alone"
        return f"{folder} has no certificate yet: run certbot on the host"


@dataclass(frozen=True, slots=True)
class Manual:
    """Two files of the owner's."""

    chain_path: str
    key_path: str

    def glance(self) -> str:
        """The two files' targets, sizes and times."""
        return f"{_look(self.chain_path)} {_look(self.key_path)}"

    def take(self, published: Pair | None, now: float) -> Pair:
        """The two files as they are."""
        return _read_pair(self.chain_path, self.key_path)


def source_for(settings: Settings, letsencrypt: str = LETSENCRYPT) -> Source:
    """The source that SSL_TYPE names; raises WrongSetting."""
    if settings.ssl_type == "letsencrypt":
        return LetsEncrypt(settings.hostname, letsencrypt)
    if settings.ssl_type == "manual":
        for variable, path in (("SSL_CERT_PATH", settings.ssl_cert_path), ("SSL_KEY_PATH", settings.ssl_key_path)):
            if not os.path.isabs(path):
                raise WrongSetting(
                    f"{variable}={path!r} (env/tls.env) is not allowed: with SSL_TYPE=manual it is "
                    "the absolute path of a PEM file, as this container sees it"
                )
        return Manual(settings.ssl_cert_path, settings.ssl_key_path)
    return SelfSigned(os.path.join(settings.room_dir, "ca"), settings.hostname, settings.mail_domain.lower())


def _look(path: str) -> str:
    """What differs when another file is behind `path`, or the same was written: size, time and identity."""
    try:
        state = os.stat(path)
    except OSError as error:
        return f"{error.errno}"
    return f"{state.st_size} {state.st_mtime_ns} {state.st_dev} {state.st_ino}"


def _read_pair(chain_path: str, key_path: str) -> Pair:
    contents = []
    for path in (chain_path, key_path):
        try:
            with open(path, "rb") as file:
                contents.append(file.read(_LONGEST_PEM))
        except FileNotFoundError:
            hint = "; its link points outside of what is mounted" if os.path.islink(path) else ""
            raise Unusable(f"{path} is not there{hint}") from None
        except OSError as error:
            raise Unusable(f"{path} cannot be read as uid {os.geteuid()}: {error.strerror}") from None
    return Pair(contents[0], contents[1], origin=chain_path)


_LONGEST_PEM = 1 << 20  # a chain is some 10 KiB; a path that names a disk image by mistake must not fill memory
