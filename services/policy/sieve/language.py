"""The words of the language: each command and test with its arguments, tags and the capability that it belongs to.

A table for `check`. Who adds a command writes its line here, its own rules in `check`, what it does in `run` or
`tests`.
"""

from __future__ import annotations

from dataclasses import dataclass

# What a script may `require`. RFC 5228 §2.10.5 and §6: comparators are capabilities, and the two of the base are there
# without being asked for.
CAPABILITIES = (
    "body",
    "comparator-i;ascii-casemap",
    "comparator-i;ascii-numeric",
    "comparator-i;octet",
    "comparator-i;unicode-casemap",
    "copy",
    "date",
    "encoded-character",
    "envelope",
    "ereject",
    "fileinto",
    "imap4flags",
    "index",
    "mailbox",
    "reject",
    "relational",
    "special-use",
    "subaddress",
    "vacation",
    "vacation-seconds",
    "variables",
)
COMPARATORS = ("i;ascii-casemap", "i;ascii-numeric", "i;octet", "i;unicode-casemap")

STRING, STRINGS, NUMBER = "a string", "a string or a list of strings", "a number"


@dataclass(frozen=True, slots=True)
class TagForm:
    """A tag: what stands behind it, where anything does; of each `group` only one may be said."""

    value: str = ""
    capability: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """A command or test. `optional`: the first so many positional arguments may be left out."""

    positional: tuple[str, ...] = ()
    tags: dict[str, TagForm] | None = None
    capability: str = ""
    tests: str = ""  # "", "one" or "many"
    block: bool = False
    optional: int = 0


_MATCH = {
    "is": TagForm(group="match"),
    "contains": TagForm(group="match"),
    "matches": TagForm(group="match"),
    # RFC 5231 §4
    "count": TagForm(STRING, "relational", "match"),
    "value": TagForm(STRING, "relational", "match"),
    "comparator": TagForm(STRING, "", "comparator"),
}
_ADDRESS_PART = {
    "localpart": TagForm(group="part"),
    "domain": TagForm(group="part"),
    "all": TagForm(group="part"),
    # RFC 5233 §4
    "user": TagForm("", "subaddress", "part"),
    "detail": TagForm("", "subaddress", "part"),
}
# RFC 5260 §6
_INDEX = {"index": TagForm(NUMBER, "index", "index"), "last": TagForm("", "index", "last")}
_FLAGS = {"flags": TagForm(STRINGS, "imap4flags", "flags")}  # RFC 5232 §5
_COPY = {"copy": TagForm("", "copy", "copy")}  # RFC 3894
_MODIFIERS = {
    # RFC 5229 §4.1: those of one precedence exclude each other.
    "lower": TagForm("", "", "40"),
    "upper": TagForm("", "", "40"),
    "lowerfirst": TagForm("", "", "30"),
    "upperfirst": TagForm("", "", "30"),
    "quotewildcard": TagForm("", "", "20"),
    "length": TagForm("", "", "10"),
}

COMMANDS: dict[str, Form] = {
    "require": Form((STRINGS,)),
    "if": Form(tests="one", block=True),
    "elsif": Form(tests="one", block=True),
    "else": Form(block=True),
    "stop": Form(),
    "keep": Form(tags=_FLAGS),
    "discard": Form(),
    "redirect": Form((STRING,), _COPY),
    "fileinto": Form(
        (STRING,),
        {
            **_FLAGS,
            **_COPY,
            "create": TagForm("", "mailbox", "create"),  # RFC 5490 §3.2
            "specialuse": TagForm(STRING, "special-use", "specialuse"),  # RFC 8579 §4
        },
        "fileinto",
    ),
    "reject": Form((STRING,), capability="reject"),
    "ereject": Form((STRING,), capability="ereject"),
    "setflag": Form((STRING, STRINGS), capability="imap4flags", optional=1),
    "addflag": Form((STRING, STRINGS), capability="imap4flags", optional=1),
    "removeflag": Form((STRING, STRINGS), capability="imap4flags", optional=1),
    "set": Form((STRING, STRING), _MODIFIERS, "variables"),
    "vacation": Form(
        (STRING,),
        {
            "days": TagForm(NUMBER, "", "period"),
            "seconds": TagForm(NUMBER, "vacation-seconds", "period"),  # RFC 6131 §2: not both
            "subject": TagForm(STRING, "", "subject"),
            "from": TagForm(STRING, "", "from"),
            "addresses": TagForm(STRINGS, "", "addresses"),
            "mime": TagForm("", "", "mime"),
            "handle": TagForm(STRING, "", "handle"),
        },
        "vacation",
    ),
}

TESTS: dict[str, Form] = {
    "true": Form(),
    "false": Form(),
    "not": Form(tests="one"),
    "allof": Form(tests="many"),
    "anyof": Form(tests="many"),
    "exists": Form((STRINGS,)),
    "size": Form((NUMBER,), {"over": TagForm(group="size"), "under": TagForm(group="size")}),
    "header": Form((STRINGS, STRINGS), {**_MATCH, **_INDEX}),
    "address": Form((STRINGS, STRINGS), {**_MATCH, **_ADDRESS_PART, **_INDEX}),
    "envelope": Form((STRINGS, STRINGS), {**_MATCH, **_ADDRESS_PART}, "envelope"),
    "body": Form(
        (STRINGS,),
        {
            **_MATCH,
            "raw": TagForm(group="transform"),
            "content": TagForm(STRINGS, "", "transform"),
            "text": TagForm(group="transform"),
        },
        "body",
    ),
    "string": Form((STRINGS, STRINGS), _MATCH, "variables"),
    "hasflag": Form((STRINGS, STRINGS), _MATCH, "imap4flags", optional=1),
    "date": Form(
        (STRING, STRING, STRINGS),
        {**_MATCH, **_INDEX, "zone": TagForm(STRING, "", "zone"), "originalzone": TagForm(group="zone")},
        "date",
    ),
    "currentdate": Form((STRING, STRINGS), {**_MATCH, "zone": TagForm(STRING, "", "zone")}, "date"),
    "mailboxexists": Form((STRINGS,), capability="mailbox"),
    # RFC 8579 §3: with one argument it is the list of attributes.
    "specialuse_exists": Form((STRING, STRINGS), capability="special-use", optional=1),
}
