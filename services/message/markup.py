"""What HTML mail shows and where its links lead, in one pass; what it hides is counted and left out.

Called by `reading` for the junk filter. Neither a parser nor a sanitizer: tags are told from text, elements that no
reader sees are passed over, links keep their target and the words they are shown with. Pure, never raises, linear in
the length of its text: each piece of it is matched once.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

# `<` that begins no tag is text. Where the end is missing the rest of the text is taken for the tag.
_PIECE = re.compile(r"<(?:!--.*?(?:-->|\Z)|(/?)([A-Za-z][A-Za-z0-9:]*+)([^>]*+)(?:>|\Z)|[!?/][^>]*+(?:>|\Z))", re.S)
# Only names that are used: a pattern for any name would be tried from each letter of a long word.
_ATTRIBUTE = re.compile(
    r"\b(href|src|style|hidden|color|size)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))", re.I
)
_MOST_ATTRIBUTES = 4_000
_UNSEEN = re.compile(
    r"display\s*+:\s*+none|visibility\s*+:\s*+hidden|mso-hide\s*+:\s*+all"
    r"|(?:font-size|max-height|opacity|line-height)\s*+:\s*+0(?:\.0*+)?\s*+(?:px|pt|em|rem|%)?\s*+(?:[;!]|\Z)"
    r"|font-size\s*+:\s*+1(?:px|pt)\s*+(?:[;!]|\Z)",
    re.I,
)
_SKIPPED = frozenset(("style", "script", "head", "title", "noscript", "template", "xml"))
_BREAKS = frozenset(
    (
        "address", "article", "blockquote", "br", "center", "dd", "div", "dl", "dt", "footer", "form", "h1", "h2", "h3",
        "h4", "h5", "h6", "header", "hr", "li", "ol", "option", "p", "pre", "section", "table", "tbody", "td", "th",
        "tr", "ul",
    )
)  # fmt: skip
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr")
)
MOST_LINKS = 200
_MOST_SHOWN = 200


@dataclass(slots=True)
class Link:
    """A link: where it leads, as written, and the words shown for it; "" where it is in plain text or is a picture."""

    target: str
    shown: str = ""


@dataclass(slots=True)
class Seen:
    """What is seen of one HTML part. `hidden`: characters that are not; `pictures`: where they come from."""

    text: str = ""
    hidden: int = 0
    links: list[Link] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    forms: int = 0


class _Eye:
    """Goes along the pieces and keeps what is seen."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.out: list[str] = []
        self.link: Link | None = None
        self.link_from = 0
        # Within an element that is not shown: its name, and how many of that name are open.
        self.unseen = ""
        self.depth = 0

    def text(self, text: str) -> None:
        if self.unseen:
            self.seen.hidden += len(text) - text.count(" ")
        else:
            self.out.append(text)

    def begin(self, name: str, attributes: str) -> None:
        if self.unseen:
            self.depth += name == self.unseen
            return
        if name in _BREAKS:
            self.out.append("\n")
        if not attributes:
            return
        given = {found[1].lower(): found[2] or found[3] or found[4] or "" for found in _ATTRIBUTE.finditer(attributes)}
        if "style" in given and name not in _VOID and _UNSEEN.search(given["style"]):
            self.unseen, self.depth = name, 1
            return
        if name == "a" and "href" in given:
            self.end_link()
            if len(self.seen.links) < MOST_LINKS:
                self.link = Link(html.unescape(given["href"]).strip())
                self.seen.links.append(self.link)
                self.link_from = len(self.out)
        elif name == "img" and "src" in given and len(self.seen.pictures) < MOST_LINKS:
            self.seen.pictures.append(html.unescape(given["src"]).strip()[:_MOST_SHOWN])

    def end(self, name: str) -> None:
        if self.unseen:
            if name == self.unseen:
                self.depth -= 1
                if self.depth <= 0:
                    self.unseen = ""
            return
        if name == "a":
            self.end_link()
        elif name in _BREAKS:
            self.out.append("\n")

    def end_link(self) -> None:
        if self.link is not None:
            # A link's words are few; whoever never closes one is not read again and again.
            self.link.shown = html.unescape("".join(self.out[self.link_from : self.link_from + 20]))[
                :_MOST_SHOWN
            ].strip()
            self.link = None


def seen(source: str) -> Seen:
    """The visible text of `source`, its links and pictures. Blanks are kept as they are, block elements are lines."""
    eye = _Eye()
    position, end = 0, len(source)
    while position < end:
        piece = _PIECE.search(source, position)
        if piece is None:
            eye.text(source[position:])
            break
        if piece.start() > position:
            eye.text(source[position : piece.start()])
        position = piece.end()
        if piece[2] is None:
            continue
        name = piece[2].lower()
        if piece[1]:
            eye.end(name)
        elif name in _SKIPPED:
            closed = re.compile(rf"</{name}\s*+>", re.I).search(source, position)
            position = closed.end() if closed else end
        else:
            eye.seen.forms += name == "form"
            eye.begin(name, piece[3][:_MOST_ATTRIBUTES])
    eye.end_link()
    eye.seen.text = html.unescape("".join(eye.out))
    return eye.seen
