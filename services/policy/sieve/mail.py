"""The message as a script sees it: fields decoded, addresses taken apart, body parts, each only when it is asked for.

Made by smtp-in for each message and recipient, from the octets that were received; read by `tests` and `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from services.message import mime, text
from services.message.addresses import Address, addresses
from services.message.headers import fields

# Of a body, what scripts look at: an attachment behind it is nothing to search for words in.
MAX_BODY = 4 << 20
_UNTOLD = (b"MISSING_MAILBOX", b"MISSING_DOMAIN", b"SYNTAX_ERROR")


@dataclass(slots=True)
class Mail:
    """`header` with its CRLF line ends and without the empty line, `size` in octets of the whole message.

    `whole` gives the message's octets, MAX_BODY of its body at most; it is called at most once, by a body test.
    `sender` and `recipient` are of the envelope; the null sender is "".
    """

    header: bytes
    size: int
    sender: str
    recipient: str
    whole: Callable[[], bytes]
    _fields: dict[bytes, list[bytes]] | None = None
    _texts: dict[bytes, list[bytes]] = field(default_factory=dict)
    _addresses: dict[bytes, tuple[Address, ...]] = field(default_factory=dict)
    _octets: bytes | None = None
    _tree: mime.Part | None = None
    _parts: dict[tuple[int, bool], tuple[bytes, ...]] = field(default_factory=dict)

    def values(self, name: bytes) -> list[bytes]:
        """The fields called `name`, unfolded, as they stand."""
        if self._fields is None:
            self._fields = {}
            for each in fields(self.header):
                self._fields.setdefault(each.name.lower(), []).append(each.value)
        return self._fields.get(name.lower(), [])

    def texts(self, name: bytes) -> list[bytes]:
        """The same, RFC 2047 words decoded, in UTF-8 (RFC 5228 §2.7.2), without blanks at the ends (§5.7)."""
        found = self._texts.get(name.lower())
        if found is None:
            found = [
                text.header_text(value).encode("utf-8", "replace").strip(b" \t\r\n") for value in self.values(name)
            ]
            self._texts[name.lower()] = found
        return found

    def addresses(self, value: bytes) -> tuple[Address, ...]:
        """Every mailbox in a field's value; groups are their members. Read once for a value."""
        found = self._addresses.get(value)
        if found is None:
            found = tuple(each for each in addresses(value) if each.mailbox is not None and each.host is not None)
            self._addresses[value] = found
        return found

    # --- body

    @property
    def octets(self) -> bytes:
        """The message."""
        if self._octets is None:
            self._octets = self.whole()
        return self._octets

    @property
    def tree(self) -> mime.Part:
        """Its parts."""
        if self._tree is None:
            self._tree = mime.tree(self.octets)
        return self._tree

    def raw_body(self) -> bytes:
        """RFC 5173 §5.1: everything behind the header."""
        return self.octets[self.tree.body :]

    def parts(self) -> Iterator[mime.Part]:
        """All parts, the message itself first, in the order in which they stand."""
        stack = [self.tree]
        while stack:
            part = stack.pop()
            yield part
            stack.extend(reversed(part.children))

    def contents(self, part: mime.Part, *, words: bool = False) -> tuple[bytes, ...]:
        """RFC 5173 §5.2, §5.3: a part's content with its transfer encoding undone, text in UTF-8.

        Of a multipart two: what stands before its first and behind its last part; of a message its header. `words`: of
        HTML its words.
        """
        found = self._parts.get((id(part), words))
        if found is None:
            found = self._parts[id(part), words] = self._around(part) or (self._content(part, words),)
        return found

    def _around(self, part: mime.Part) -> tuple[bytes, ...]:
        if part.kind != mime.MULTIPART or not part.children:
            return ()
        first, last = part.children[0], part.children[-1]
        return (self.octets[part.body : first.header], self.octets[last.end : part.end])

    def _content(self, part: mime.Part, words: bool) -> bytes:
        octets = self.octets
        if part.kind == mime.MESSAGE:
            inner = part.children[0]
            return octets[inner.header : inner.body]
        if part.type.main.lower() == b"text":
            found = text.part_text(octets, part)
            if words and part.type.sub.lower() == b"html":
                found = text.html_text(found)
            return found.encode("utf-8", "replace")
        encoding = (mime_encoding(part) or b"").lower()
        return text.transfer_decoded(octets[part.body : part.end], encoding)


def mime_encoding(part: mime.Part) -> bytes | None:
    """Content-Transfer-Encoding."""
    from services.message.media_types import mime_token

    return mime_token(part.fields.get(b"content-transfer-encoding", b""))


def is_whole(address: Address) -> bool:
    """Whether both sides of the @ could be read."""
    return address.mailbox not in _UNTOLD and address.host not in _UNTOLD
