"""The tokens of a message for the junk filter: what of it may recur in other mail of its kind.

Called by the rooms with a `Reading`; `policy/junk` weighs them. A token says where it was found (`s:` subject, `f:`
sender, `u:` link ...), since "invoice" in a subject is other evidence than in a text. Latin words stand by themselves
and in pairs; Chinese, Japanese and Korean have no blanks, so each run of their characters gives its pairs of neighbours
(bigrams), which are near to words. Pure, never raises, at most MOST_TOKENS, in time linear in the reading's bounded
texts.

VERSION belongs to what is stored: a change of what this module gives makes counts of before and after differ, so
untraining then never counts below zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise

from services.message.reading import Reading, domain_of, host_of

VERSION = 1
# Enough for a long letter; the weighing takes the most telling 150 of them anyway.
MOST_TOKENS = 4_000
_MOST_FOUND = 12_000  # with those that come again
_LONGEST_WORD = 20
_MOST_WORDS = 2_500  # of the text; a spammer who appends a book is not read to its end
_MOST_RUN = 3_000

# Han, kana, Hangul; without them words of letters, digits and what stands within a word. Prices keep their sign.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_PIECE = re.compile(
    rf"[{_CJK}]+|[$€£¥]?[^\W_{_CJK}]+(?:['’.@$!-][^\W_{_CJK}]+)*+|[!?]{{2,}}|[$€£¥★☆◆◇■□●○►→✅✔❤🔥🎁💰]+"
)
# Characters put between those of a word to hide it: 发~票, 加 微 信, v.i.a.g.r.a.
_PARTED_CJK = re.compile(rf"(?<=[{_CJK}])[\s~*_·.|/\\^+=-]{{1,3}}(?=[{_CJK}])")
_PARTED_LATIN = re.compile(r"(?<![^\W_])[^\W\d_](?:([ .*_-])[^\W\d_])(?:\1[^\W\d_]){2,15}(?![^\W_])")
_DIGITS = re.compile(r"\d+")
_IS_CJK = re.compile(rf"[{_CJK}]")
# What the way here adds or a store keeps, and what every message has: says nothing about what the message is.
_EVERY_FIELD = frozenset(
    (
        b"received", b"return-path", b"delivered-to", b"x-original-to", b"envelope-to", b"from", b"to",
        b"subject", b"date", b"status", b"x-status", b"x-uid", b"x-keywords", b"x-mozilla-status",
        b"x-mozilla-status2", b"x-mozilla-keys", b"content-length", b"lines", b"x-folder", b"x-imapbase",
        b"x-evolution-source", b"authentication-results", b"received-spf", b"arc-seal",
        b"arc-message-signature", b"arc-authentication-results", b"dkim-signature", b"x-spam-status",
        b"x-spam-level", b"x-spam-score", b"x-spam-flag", b"x-spam-checker-version", b"x-spam-report",
        b"x-spam", b"x-spam-bar", b"x-spam-action", b"x-spamd-result", b"x-spamd-bar", b"x-rspamd-server",
        b"x-rspamd-queue-id", b"x-virus-scanned",
    )
)  # fmt: skip


def tokens(reading: Reading) -> list[str]:
    """Each token once, the header's first."""
    sources = chain.from_iterable(source(reading) for source in (_sender, _header, _subject, _shape, _links, _text))
    return list(dict.fromkeys(islice(sources, _MOST_FOUND)))[:MOST_TOKENS]


def parted(found: Iterable[str]) -> tuple[list[str], list[str]]:
    """(tokens of any mail, tokens that are Chinese, Japanese or Korean words)."""
    kinds: tuple[list[str], list[str]] = ([], [])
    for token in found:
        kinds[token[-1] >= "\u3040" and _cjk(token[-1])].append(token)
    return kinds


def is_cjk(reading: Reading) -> bool:
    """True where a part of what is read is written in Chinese, Japanese or Korean: from one character in twenty on,
    since a page in Chinese is full of Latin names, numbers and addresses."""
    text = reading.subject + reading.text[:4_000]
    return len(_IS_CJK.findall(text)) * 20 >= len(text) - text.count(" ") > 0


def _sender(reading: Reading) -> Iterator[str]:
    host = reading.from_address.rpartition("@")[2]
    yield f"f:{reading.from_address}" if reading.from_address else "f:none"
    if host:
        yield f"fd:{domain_of(host)}"
        yield f"ft:{host.rpartition('.')[2]}"
        yield f"fl:{_shape_of(reading.from_address.rpartition('@')[0])}"
    yield from (f"fn:{word}" for word in _words(reading.from_name, 20))
    if not reading.from_name:
        yield "fn:none"
    if reading.reply_to:
        other = domain_of(reading.reply_to.rpartition("@")[2])
        yield f"r:{other}"
        if other != domain_of(host):
            yield "r:elsewhere"
    if reading.list_id:
        yield f"list:{reading.list_id}"


def _shape_of(local: str) -> str:
    """a for letters, 0 for digits: whoever makes up senders makes them by one pattern."""
    return re.sub(r"(.)\1+", r"\1", re.sub(r"[^\W\d_]", "a", _DIGITS.sub("0", local[:64])))[:12]


def _header(reading: Reading) -> Iterator[str]:
    for name in reading.names[:60]:
        if name not in _EVERY_FIELD and not name.startswith(b"x-mailstead-"):
            yield f"h:{name.decode('ascii', 'replace')}"
    for missing in (b"date", b"message-id", b"to", b"mime-version"):
        if missing not in reading.fields:
            yield f"no:{missing.decode()}"
    for name in (b"x-mailer", b"user-agent", b"precedence", b"x-priority", b"importance", b"auto-submitted"):
        value = reading.fields.get(name, b"")[:200].decode("utf-8", "replace").lower()
        if value:
            yield from (f"{name.decode()}:{word}" for word in _words(_DIGITS.sub("", value), 6))
    yield f"to#{min(reading.recipients, 3) if reading.recipients < 10 else 10}"


def _subject(reading: Reading) -> Iterator[str]:
    words = list(_words(reading.subject, 60))
    for word in words:
        yield f"s:{word}"
    yield from (f"s:{one} {two}" for one, two in pairwise(words) if not (_cjk(one) or _cjk(two)))
    if not words:
        yield "s:none"


def _shape(reading: Reading) -> Iterator[str]:
    for kind in reading.types[:12]:
        yield f"ct:{kind}"
    for charset in reading.charsets:
        yield f"cs:{charset}"
    for encoding in reading.encodings:
        yield f"ce:{encoding}"
    for attachment in reading.attachments[:10]:
        yield f"a:{attachment.type}"
        yield f"ae:{attachment.name.rpartition('.')[2][:8]}"
    yield f"len:{len(reading.text).bit_length()}"
    if reading.hidden:
        yield f"hidden:{reading.hidden.bit_length()}"
    if reading.no_width or reading.lookalikes:
        yield "odd-letters"
    if reading.pictures:
        yield f"img:{len(reading.pictures).bit_length()}"
    if reading.markup and not reading.plain:
        yield "html-only"


def _links(reading: Reading) -> Iterator[str]:
    yield f"links:{len(reading.links).bit_length()}"
    seen_hosts: set[str] = set()
    for target in [*(link.target for link in reading.links), *reading.pictures]:
        host = host_of(target)
        if not host or host in seen_hosts:
            continue
        if len(seen_hosts) >= 40:
            return
        seen_hosts.add(host)
        yield f"u:{host}"
        yield f"ud:{domain_of(host)}"
        yield f"ut:{host.rpartition('.')[2]}"
    for link in reading.links[:30]:
        path = link.target.partition("//")[2].partition("/")[2].partition("?")[0]
        first = _DIGITS.sub("0", path.partition("/")[0].lower())
        if 2 < len(first) <= 24:
            yield f"up:{first}"


def _text(reading: Reading) -> Iterator[str]:
    before = ""
    for word in _words(reading.text, _MOST_WORDS):
        yield word
        if word[0] >= "\u3040" and _cjk(word):
            before = ""
            continue
        if before:
            yield f"{before} {word}"
        before = word
    for found in _PARTED_LATIN.finditer(reading.text[:20_000]):
        yield f"parted:{''.join(character for character in found[0] if character.isalpha()).lower()}"


def _cjk(word: str) -> bool:
    return word[0] >= "\u3040" and _IS_CJK.match(word) is not None


def _words(text: str, most: int) -> Iterator[str]:
    """Words and bigrams of `text`, in order, case folded, at most `most` pieces."""
    if not text.isascii():
        text = _PARTED_CJK.sub("", text)
    count = 0
    for found in _PIECE.finditer(text):
        piece = found[0]
        count += 1
        if count > most:
            return
        if piece[0] >= "\u3040" and _cjk(piece):
            # A character alone says little; where it stands alone it is all there is.
            if len(piece) == 1:
                yield piece
            for at in range(min(len(piece) - 1, _MOST_RUN)):
                yield piece[at : at + 2]
            count += len(piece) // 2
        elif len(piece) <= _LONGEST_WORD and piece.isalpha():
            yield piece.casefold()
        else:
            yield from _word(piece)


def _word(piece: str) -> Iterable[str]:
    word = piece.casefold()
    if word.isalpha() and len(word) <= _LONGEST_WORD:
        return (word,)  # nearly all are: the rest costs five times as much
    if not word[0].isalnum() and len(word) > 1 and not word[1].isalnum():
        return (word[:3],)
    if len(word) > _LONGEST_WORD:
        return (f"long:{word[:2]}{len(word) // 10}",)
    if any(character.isdigit() for character in word):
        # A number of its own (telephone, QQ, order) recurs whole; its length says what it is.
        masked = _DIGITS.sub(lambda digits: "0" * min(len(digits[0]), 12), word)
        return (word, f"#{masked}") if 5 <= sum(map(str.isdigit, word)) <= 12 else (f"#{masked}",)
    return (word,)
