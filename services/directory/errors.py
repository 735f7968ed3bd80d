"""Why a change of the directory was not made; each text is a sentence for the owner."""

from __future__ import annotations


class DirectoryError(Exception):
    """A change that was not made; the text is for the owner."""


class NotFound(DirectoryError):
    """What should be changed is not there."""


class Exists(DirectoryError):
    """It is there already."""


class Refused(DirectoryError):
    """It would leave the directory broken."""


class Closed(DirectoryError):
    """Nothing can be changed for now: an update is under way. Nothing was changed."""


class NotPublished(DirectoryError):
    """The change is saved; the rooms do not see it yet."""
