"""Signs of junk that need no training: what a stranger's first letter looks like. Each with its points and a sentence.

Called by smtp-in's JunkJudge and `mailstead junk evaluate` with what `message/reading` saw. Pure. Together with the
peer's and DNS's verdicts these decide while an account has sorted nothing yet, so they must be quiet on good mail: none
alone reaches JUNK_SCORE, the phrases of one kind count once, and what newsletters, shops and mailing lists do (links
through a counter, text hidden before a preview, many recipients) is worth little or nothing. Points are what was left
after they were run over good mail of both languages; none of it was chosen by what a single message would need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from services.message.reading import Reading, domain_of, host_of
from services.policy.junk_phrases import spoken_of
from services.policy.verdict import Reason

# A person's mailbox at a large provider: where Reply-To of a swindle leads.
_FREEMAIL = frozenset(
    (
        "gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "msn.com", "yahoo.com", "yahoo.co.uk",
        "aol.com", "gmx.com", "gmx.net", "mail.com", "mail.ru", "yandex.com", "yandex.ru", "proton.me",
        "protonmail.com", "icloud.com", "zoho.com", "tutanota.com", "qq.com", "foxmail.com", "163.com", "126.com",
        "yeah.net", "sina.com", "sina.cn", "sohu.com", "139.com", "189.cn", "aliyun.com", "tom.com", "21cn.com",
    )
)  # fmt: skip
_SHORTENERS = frozenset(
    (
        "bit.ly", "tinyurl.com", "goo.gl", "is.gd", "ow.ly", "cutt.ly", "rb.gy", "shorturl.at", "t.ly", "tiny.cc",
        "s.id", "v.gd", "rebrand.ly", "dwz.cn", "suo.im", "t.cn", "url.cn", "mrw.so", "985.so", "u.nu",
    )
)  # fmt: skip
_PROGRAMS = frozenset(
    (
        "ade", "apk", "bat", "chm", "cmd", "com", "cpl", "exe", "hta", "img", "iso", "jar", "jse", "js", "lnk", "msi",
        "msc", "pif", "ps1", "reg", "scr", "vbe", "vbs", "vhd", "wsf", "wsh", "xll",
    )
)  # fmt: skip
_ADDRESS = re.compile(r"[\w.+-]{1,64}@([\w-]{1,63}(?:\.[\w-]{1,63})+)")
_SHOWN_HOST = re.compile(r"(?:https?://)?((?:[a-z0-9-]{1,63}\.)+[a-z]{2,12})(?:[/?:]\S*)?", re.I)
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|0x[0-9a-f]{8}|\d{8,10}")
_OWN_NETWORK = re.compile(r"127\.|10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.")
_SHOUT = re.compile(r"!\s?!|\${2,}|[!?]{3,}")
# Five letters and more, the same character between each two: w.a.t.c.h.e.s, 发~票~优~惠~代~开. Blanks are left alone,
# since titles are spaced so.
_PARTED = re.compile(r"(?<![^\W_])[^\W\d_]([*~_.|^-])[^\W\d_](?:\1[^\W\d_]){3,40}")
# What each of those has in it; it begins with a sign, which is looked for much faster than a letter.
_PARTED_HINT = re.compile(r"([*~_.|^-])[^\W\d_]\1[^\W\d_]\1")
_PADDED = re.compile(r"\s{6,}\S{3,}$")
_MOST_PHRASES = 6.0
_MOST_LOOKED_AT = 16_384


def reasons(reading: Reading) -> list[Reason]:
    """What speaks for junk, the weightiest first."""
    found = [reason for rule in _RULES for reason in rule(reading)]
    found.sort(key=lambda reason: -reason.weight)
    return found


def _from(reading: Reading) -> Iterator[Reason]:
    if not reading.from_address:
        yield Reason("junk-no-sender", "From names no address", 1.0)
        return
    domain = domain_of(reading.from_address)
    shown = _ADDRESS.search(reading.from_name)
    # Mailing lists that may not send for a member's domain put the member's address into the name.
    if shown and domain_of(shown[1].lower()) != domain and not reading.list_id:
        yield Reason("junk-name-address", "the sender's name shows another address", 1.5)
    if reading.reply_to and reading.reply_to != reading.from_address:
        other = domain_of(reading.reply_to)
        if other in _FREEMAIL and other != domain and not reading.list_id:
            yield Reason("junk-reply-elsewhere", "answers go to a free mailbox at another provider", 1.2)


def _fields(reading: Reading) -> Iterator[Reason]:
    for name, points, text in (
        (b"date", 0.3, "it has no date"),
        (b"message-id", 0.2, "it has no Message-ID"),
    ):
        if name not in reading.fields:
            yield Reason(f"junk-no-{name.decode()}", text, points)
    if reading.subject[:4].lower() == "re: " and not (
        b"in-reply-to" in reading.fields or b"references" in reading.fields
    ):
        yield Reason("junk-no-reply", "it claims to be an answer and names no message that it answers", 0.3)


def _subject(reading: Reading) -> Iterator[Reason]:
    subject = reading.subject
    letters = [character for character in subject if character.isalpha() and character.isascii()]
    if len(letters) >= 12 and " " in subject.strip() and all(character.isupper() for character in letters):
        yield Reason("junk-shouting", "the subject is written in capitals", 0.7)
    if _SHOUT.search(subject):
        yield Reason("junk-exclaiming", "the subject has !! or $$", 0.5)
    if _PADDED.search(subject):
        yield Reason("junk-padded", "the subject ends in something far to the right", 0.8)


def _letters(reading: Reading) -> Iterator[Reason]:
    if reading.lookalikes >= 3:
        yield Reason("junk-lookalikes", "words are written with letters of another script that look alike", 1.5)
    if reading.no_width >= 3:
        yield Reason("junk-no-width", "words have characters in them that are not seen", 1.5)
    looked_at = (reading.subject, reading.text[:_MOST_LOOKED_AT])
    if any(_PARTED_HINT.search(text) and _PARTED.search(text) for text in looked_at):
        yield Reason("junk-parted", "words are taken apart, with a sign between their letters", 1.5)
    seen = len(reading.text)
    if reading.hidden > 600 and reading.hidden > 2 * seen:
        yield Reason("junk-hidden", "most of its text is hidden", 1.2)
    if reading.ascii_as_base64:
        yield Reason("junk-base64", "plain English text was sent in base64", 0.2)


def _links(reading: Reading) -> Iterator[Reason]:
    hosts = [(link, host_of(link.target)) for link in reading.links]
    if any(_IPV4.fullmatch(host) and not _OWN_NETWORK.match(host) for _, host in hosts):
        yield Reason("junk-link-address", "a link leads to a bare IP address", 1.2)
    if any(host in _SHORTENERS for _, host in hosts):
        yield Reason("junk-shortener", "a link hides where it leads behind a shortener", 0.6)
    own = domain_of(reading.from_address)
    for link, host in hosts:
        shown = _SHOWN_HOST.fullmatch(link.shown)
        # Newsletters count clicks: their links lead to a counter in any case, and show their own name.
        if shown and host and domain_of(shown[1].lower()) not in (domain_of(host), own):
            yield Reason("junk-link-other", "a link shows another address than the one it leads to", 0.6)
            break
    few_words = len(reading.text) < 80 and len(reading.text.split()) < 12
    if reading.pictures and "text/html" in reading.types and few_words and not reading.attachments:
        yield Reason("junk-picture", "it is a picture and hardly any words", 0.8)
    if reading.forms:
        yield Reason("junk-form", "it has a form to fill in", 0.8)


def _attachments(reading: Reading) -> Iterator[Reason]:
    for attachment in reading.attachments:
        stem, _, ending = attachment.name.rpartition(".")
        if ending in _PROGRAMS and attachment.type != "application/pgp-signature":
            double = "." in stem[-6:-2]
            yield Reason("junk-program", "a program is attached", 4.0 if double else 2.0)
            return
        if ending in ("htm", "html", "shtml") and len(reading.attachments) == 1:
            yield Reason("junk-page", "a web page is attached", 0.6)
            return


def _phrases(reading: Reading) -> Iterator[Reason]:
    # Members of a list talk of such mail, and whoever sends it to a list had to pass that list's filter.
    share = 0.5 if reading.list_id else 1.0
    room = _MOST_PHRASES * share
    for kind in spoken_of(f"{reading.subject}\n{reading.text}"):
        points = min(kind.points * share, room)
        room -= points
        if points > 0:
            yield Reason("junk-phrase", f"it speaks of {kind.name}", points)


_RULES: tuple[Callable[[Reading], Iterator[Reason]], ...] = (
    _from,
    _fields,
    _subject,
    _letters,
    _links,
    _attachments,
    _phrases,
)
