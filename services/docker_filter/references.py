"""Names of images and containers, as the filter lets them through. Pure.

An image's name is `host/folder/name:tag`, `...@sha256:digest`, or an id; a container's is Compose's own, `project-
service-number`, with what an update adds to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?(?::[0-9]{1,5})?"
REPOSITORY = re.compile(rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT}){{0,7}}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LONGEST = 300  # a repository is at most 255 characters (distribution's own limit), its tag 128

UPDATE_ID = re.compile(r"[0-9a-z]{1,20}")
_UPDATED = re.compile(r"(?P<name>.+)-(?P<step>before|next)-(?P<id>[0-9a-z]{1,20})")
# The tag that keeps an image for a roll-back.
KEPT_TAG = "before-"


@dataclass(frozen=True, slots=True)
class Reference:
    """`repository` and one of `tag` or `digest`; an id has the digest alone."""

    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        if not self.repository:
            return self.digest
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    @property
    def is_id(self) -> bool:
        """True for `sha256:...` without a name."""
        return not self.repository


def reference(text: str) -> Reference | None:
    """Read an image's name or id; None when it is none. Without a tag it means `latest`, as for Docker."""
    if len(text) > LONGEST:
        return None
    if DIGEST.fullmatch(text):
        return Reference("", digest=text)
    name, at, digest = text.partition("@")
    if at:
        return Reference(name, digest=digest) if REPOSITORY.fullmatch(name) and DIGEST.fullmatch(digest) else None
    folder, slash, last = name.rpartition("/")
    short, colon, tag = last.partition(":")
    repository = folder + slash + short
    if not REPOSITORY.fullmatch(repository) or (colon and not TAG.fullmatch(tag)):
        return None
    return Reference(repository, tag or "latest")


def repository_of(name: str) -> str:
    """The repository of an entry of RepoTags or RepoDigests; "" for an id and for `<none>`."""
    found = reference(name)
    return found.repository if found else ""


def below(registry: str, repository: str) -> bool:
    """True when `repository` lies in the folder `registry`, such as ghcr.io/mailstead."""
    return repository.startswith(registry + "/")


@dataclass(frozen=True, slots=True)
class Name:
    """A container's name: Compose's, and what an update made of it (`step` "" for the one in service)."""

    canonical: str
    step: str = ""
    update: str = ""


def container_name(text: str) -> Name:
    """Split `project-imap-1-before-x7` into its parts."""
    match = _UPDATED.fullmatch(text)
    return Name(match["name"], match["step"], match["id"]) if match else Name(text)
