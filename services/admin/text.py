"""The one door that every text of the page goes through: English in the code, other languages in `locale/*.po`.

The language is the request's (`speak`), kept in a context variable, so that what is said deep inside of a request
(`overview.py`, `dns_records.py`) is said in it too; where nobody has spoken (the API, the command line) it is English.

A catalogue is read when the first request in its language comes: a house that reads English loads none. It is read from
the .po file that people edit (`catalogue.py`, 10 ms) rather than from a compiled .mo: so there is no binary in the
repository that could be older than its source, no build step, and no tool in the image; the memory is the same.
"""

from __future__ import annotations

import gettext
import os
from collections.abc import Callable
from contextvars import ContextVar

from services.admin.catalogue import read_catalogue

ENGLISH = "en"
# Tag (BCP 47) → its own name, as the switch shows it.
LANGUAGES = {ENGLISH: "English", "zh-CN": "简体中文"}
LOCALE = os.path.join(os.path.dirname(__file__), "locale")

_language: ContextVar[str] = ContextVar("language", default=ENGLISH)
_catalogues: dict[str, gettext.NullTranslations] = {ENGLISH: gettext.NullTranslations()}


def speak(language: str) -> None:
    """Say everything in `language` from here on, within this request; an unknown one is English."""
    _language.set(language if language in LANGUAGES else ENGLISH)


def language() -> str:
    """The tag of the language that is spoken."""
    return _language.get()


def _(message: str) -> str:
    """`message` in the reader's language."""
    return _spoken().gettext(message)


def ngettext(one: str, many: str, count: int) -> str:
    """The form for `count`; placeholders are the caller's to fill."""
    return _spoken().ngettext(one, many, count)


def mark(message: str) -> str:
    """`message` as it is: only marks it for the catalogue. Who shows it passes it through `_`."""
    return message


def negotiated(accepted: str) -> str:
    """The language for an Accept-Language header: the best that is here, else English.

    RFC 4647 §3.4 (lookup), except that any Chinese finds the Chinese that there is: whoever reads one reads the other
    better than English.
    """
    best, found = 0.0, ENGLISH
    for part in accepted[:400].split(","):
        tag, _semicolon, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        primary = tag.strip().lower().partition("-")[0]
        known = next((each for each in LANGUAGES if each.lower().partition("-")[0] == primary), "")
        if known and best < quality <= 1:
            best, found = quality, known
    return found


def pretend(language: str, say: Callable[[str], str] | None) -> None:
    """Have `language` say whatever `say` makes of a message (None: its own words again). For tests alone."""
    _catalogues.pop(language, None)
    if say is not None:
        _catalogues[language] = _Pretending(say)


class _Pretending(gettext.NullTranslations):
    def __init__(self, say: Callable[[str], str]) -> None:
        super().__init__()
        self._say = say

    def gettext(self, message: str) -> str:
        return self._say(message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self._say(msgid1 if n == 1 else msgid2)


def _spoken() -> gettext.NullTranslations:
    language = _language.get()
    found = _catalogues.get(language)
    if found is None:
        found = _catalogues[language] = read_catalogue(os.path.join(LOCALE, f"{language}.po"))
    return found
