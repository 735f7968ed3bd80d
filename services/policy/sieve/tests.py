"""The tests of a script (RFC 5228 §5 and extensions), one function each.

Called by `run` with what has been expanded of the test's arguments; a `:matches` that fits sets the match variables
there. Raises RunError where a test cannot mean anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from services.message import mime
from services.message.addresses import Address
from services.policy.sieve import constants, dates
from services.policy.sieve.flags import listed
from services.policy.sieve.mail import Mail, is_whole
from services.policy.sieve.match import How, matched
from services.policy.sieve.state import RunError, State
from services.policy.sieve.values import Test
from services.protocol.smtp_syntax import parse_address, quote_local


def holds(test: Test, state: State) -> bool:
    """Whether a test is true."""
    state.work.spend(0)
    return _TESTS[test.name](test, state)


def _not(test: Test, state: State) -> bool:
    return not holds(test.tests[0], state)


def _allof(test: Test, state: State) -> bool:
    # RFC 5228 §5.2: from left to right, no further than needed; RFC 5229 §3.2 makes that visible.
    return all(holds(each, state) for each in test.tests)


def _anyof(test: Test, state: State) -> bool:
    return any(holds(each, state) for each in test.tests)


def _exists(test: Test, state: State) -> bool:
    return all(state.mail.values(name) for name in state.strings(test.arguments[0]))


def _size(test: Test, state: State) -> bool:
    limit = test.arguments[0]
    assert isinstance(limit, int)
    return state.mail.size > limit if "over" in test.tags else state.mail.size < limit


def _header(test: Test, state: State) -> bool:
    mail = state.mail
    names = state.strings(test.arguments[0])
    values = _indexed([value for name in names for value in mail.texts(name)], test)
    return _match(test, state, values, test.arguments[1])


def _address(test: Test, state: State) -> bool:
    names = state.strings(test.arguments[0])
    for name in names:
        if name.lower() not in constants.ADDRESS_FIELDS:
            raise RunError(test.at, f"address cannot look at {name[:60].decode('utf-8', 'replace')}")
    return _match(test, state, _address_values(test, state, names), test.arguments[1])


def _address_values(test: Test, state: State, names: Sequence[bytes]) -> Iterator[bytes]:
    mail, part = state.mail, _part(test)
    # RFC 5260 §6: the index counts fields, also where one holds several addresses.
    for field in _indexed([field for name in names for field in mail.values(name)], test):
        for each in mail.addresses(field):
            state.work.spend(0)
            value = _part_of(each, part)
            if value is not None:
                yield value


def _part(test: Test) -> str:
    return next((tag for tag in ("localpart", "domain", "user", "detail") if tag in test.tags), "all")


def _part_of(address: Address, part: str) -> bytes | None:
    if not is_whole(address):
        return None  # RFC 5228 §5.1: what is no address has no parts
    return _split(address.mailbox or b"", address.host or b"", part)


def _split(local: bytes, host: bytes, part: str) -> bytes | None:
    if part == "localpart":
        return local
    if part == "domain":
        return host
    user, plus, detail = local.partition(b"+")
    if part == "user":
        return user
    if part == "detail":
        # RFC 5233 §4: without a separator there is no detail, not even an empty one.
        return detail if plus else None
    return quote_local(local.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape") + b"@" + host


def _envelope(test: Test, state: State) -> bool:
    values = []
    for name in state.strings(test.arguments[0]):
        which = name.lower()
        if which not in (b"from", b"to"):
            raise RunError(test.at, f"an envelope has no part {name[:60].decode('utf-8', 'replace')}")
        value = _envelope_part(state.mail.sender if which == b"from" else state.mail.recipient, _part(test))
        if value is not None:
            values.append(value)
    return _match(test, state, values, test.arguments[1])


def _envelope_part(address: str, part: str) -> bytes | None:
    if not address:
        return None if part == "detail" else b""  # RFC 5228 §5.4: the null sender is "" whatever part is asked for
    try:
        path = parse_address(address)
    except ValueError:
        return address.encode() if part == "all" else None
    return _split(path.local.encode(), path.domain.encode(), part)


def _string(test: Test, state: State) -> bool:
    values = state.strings(test.arguments[0])
    if "count" in test.tags:
        values = tuple(value for value in values if value)  # RFC 5229 §5: of :count only those that are not empty
    return _match(test, state, values, test.arguments[1])


def _hasflag(test: Test, state: State) -> bool:
    # RFC 5232 §4: of the variables named, else of the internal one. Keys are lists of flags too.
    keys = state.strings(test.arguments[1])
    named = test.arguments[0]
    names = state.strings(named) if named is not None else (None,)
    state.work.spend(sum(len(state.flags(name)) for name in names) * 200)
    flags = [flag for name in names for flag in listed((state.flags(name),))]
    how = _how(test, state)
    if how.kind != "count":
        keys = tuple(flag for key in keys for flag in key.split())
    return matched(flags, keys, how, state.work) is not None


def _body(test: Test, state: State) -> bool:
    mail = state.mail
    if "raw" in test.tags:
        values: Iterable[bytes] = (mail.raw_body(),)
    elif "content" in test.tags:
        values = _contents(mail, state.strings(test.tags["content"]))
    else:
        values = _words(mail)
    # RFC 5173 §6: no match variables are set.
    return matched(values, state.strings(test.arguments[0]), _how(test, state), state.work) is not None


def _contents(mail: Mail, types: Sequence[bytes]) -> Iterator[bytes]:
    """RFC 5173 §5.2."""
    wanted = [each.lower() for each in types]
    for part in mail.parts():
        main, sub = part.type.main.lower(), part.type.sub.lower()
        if part.kind == mime.MESSAGE:
            main, sub = b"message", b"rfc822"
        if any(_is_type(each, main, sub) for each in wanted):
            yield from mail.contents(part)


def _is_type(wanted: bytes, main: bytes, sub: bytes) -> bool:
    kind, slash, rest = wanted.partition(b"/")
    if not wanted:
        return True
    if not kind or b"/" in rest or (slash and not rest):
        return False  # §5.2: what is no type matches nothing
    return kind == main and (not slash or rest == sub)


def _words(mail: Mail) -> Iterator[bytes]:
    """RFC 5173 §5.3: what a person reads; of HTML its words."""
    for part in mail.parts():
        if not part.children and part.type.main.lower() == b"text":
            yield from mail.contents(part, words=True)


def _date(test: Test, state: State) -> bool:
    (name,) = state.strings(test.arguments[0])
    values = _indexed(state.mail.values(name), test)[:1]
    when = dates.field_date(values[0]) if values else None
    if when is not None and "originalzone" not in test.tags:
        when = dates.in_zone(when, state.zone(test))
    return _match(test, state, _date_values(test, state, when, test.arguments[1]), test.arguments[2])


def _currentdate(test: Test, state: State) -> bool:
    when = dates.in_zone(state.world.now, state.zone(test))
    return _match(test, state, _date_values(test, state, when, test.arguments[0]), test.arguments[1])


def _date_values(test: Test, state: State, when: datetime | None, part: object) -> list[bytes]:
    (name,) = state.strings(part)
    wanted = name.decode("utf-8", "replace").lower()
    if wanted not in constants.DATE_PARTS:
        raise RunError(test.at, f"{wanted[:60]} is no part of a date")
    return [] if when is None else [dates.part(when, wanted).encode()]


def _mailboxexists(test: Test, state: State) -> bool:
    # RFC 5490 §3.1: all of them.
    names = [constants.mailbox_name(name) for name in state.strings(test.arguments[0])]
    return all(name is not None and state.world.mailbox_exists(name) for name in names)


def _specialuse_exists(test: Test, state: State) -> bool:
    """RFC 8579 §3: of the mailbox named, or of any."""
    attributes = [each.decode("utf-8", "replace") for each in state.strings(test.arguments[1])]
    found = [state.world.special_use(attribute) for attribute in attributes]
    if test.arguments[0] is None:
        return all(found)
    (mailbox,) = state.strings(test.arguments[0])
    name = mailbox.decode("utf-8", "replace")
    return all(each == name for each in found)


def _indexed(values: list[bytes], test: Test) -> list[bytes]:
    """RFC 5260 §6. Of several names the fields are counted on, as Dovecot does; the RFC does not say."""
    index = test.tags.get("index")
    if not isinstance(index, int) or isinstance(index, bool):
        return values
    if index > len(values):
        return []
    return [values[-index]] if "last" in test.tags else [values[index - 1]]


def _how(test: Test, state: State) -> How:
    kind = next((tag for tag in ("contains", "matches", "count", "value") if tag in test.tags), "is")
    comparator = test.tags.get("comparator", b"i;ascii-casemap")
    relation = test.tags.get(kind)
    assert isinstance(comparator, bytes)
    return How(kind, comparator.decode(), relation.decode().lower() if isinstance(relation, bytes) else "")


def _match(test: Test, state: State, values: Iterable[bytes], keys: object) -> bool:
    found = matched(values, state.strings(keys), _how(test, state), state.work)
    if found:
        state.matched = found  # RFC 5229 §3.2: only where :matches fits; else they stay as they are
    return found is not None


_TESTS: dict[str, Callable[[Test, State], bool]] = {
    "true": lambda test, state: True,
    "false": lambda test, state: False,
    "not": _not,
    "allof": _allof,
    "anyof": _anyof,
    "exists": _exists,
    "size": _size,
    "header": _header,
    "address": _address,
    "envelope": _envelope,
    "string": _string,
    "hasflag": _hasflag,
    "body": _body,
    "date": _date,
    "currentdate": _currentdate,
    "mailboxexists": _mailboxexists,
    "specialuse_exists": _specialuse_exists,
}
