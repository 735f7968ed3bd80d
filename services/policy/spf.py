"""SPF (RFC 7208): may this address send for that domain? The check_host() of RFC 7208 §4 as a generator of questions.

What is looked at, in this order:

1. The domain of the envelope sender; of a null sender the name in HELO, with `postmaster` before it (§2.4). A domain
   that DNS cannot hold, or of one label, has the result none (§4.3).
2. Its TXT records. None of them SPF: none. More than one: permerror. DNS away: temperror.
3. The whole record is read (`policy/spf_record.py`); an error anywhere is permerror, even behind a term that matches.
4. The terms from left to right; the first that matches gives the result. `include` asks another domain's record, and
   matches where that says pass. Without a match, `redirect` goes on with another domain's record, else neutral.
5. After a fail, the domain's own explanation (exp=), with its macros written out (`policy/spf_macro.py`).

Limits (§4.6.4): 10 terms that ask DNS in all records together, 2 of them in vain, 10 MX names, 10 names of an address.
So a check asks at most 10 × (1 + 10) + 1 + 10 + 1 questions, whoever wrote the records. The time is the driver's.

Pure. Called by the smtp-in room; driven by `runtime/dns.py: settle`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from typing import Literal, NoReturn

from services.policy.spf_macro import (
    Address,
    Facts,
    MacroError,
    MacroString,
    expand,
    is_name,
    letters,
    macro_string,
    target_name,
)
from services.policy.spf_record import Directive, Qualifier, Record, RecordError, parse, select
from services.protocol.dns_lookup import Answer, Asking, DnsError, Kind, NoAnswer, NoSuchName, Question
from services.protocol.idn import a_labels

MAX_TERMS = 10  # RFC 7208 §4.6.4: that ask DNS, in one check
MAX_VOID = 2  # RFC 7208 §4.6.4: of these, whose name does not exist or has nothing
MAX_MX = 10  # RFC 7208 §4.6.4: names of one mx mechanism; more are permerror
MAX_PTR = 10  # RFC 7208 §4.6.4: names of the peer's address; more are not looked at
MAX_EXPLANATION = 2_048  # octets of the record; §6.2 wants it short enough for a reply
MAX_SHOWN = 400  # characters of the explanation written out: it may become a reply, whose lines hold 512 octets

ResultName = Literal["pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"]


@dataclass(frozen=True, slots=True)
class SpfResult:
    """What was found.

    `domain` was checked, in lower case; `scope` says where it came from. `mechanism` is the term that matched, as the
    record has it, "" where none did. `explanation` is the domain's own sentence after a fail: a stranger's text,
    printable ASCII. `problem` is our sentence for the owner, of none, temperror and permerror. `lookups` counts the
    terms that asked DNS.
    """

    result: ResultName
    domain: str
    scope: Literal["mfrom", "helo"]
    mechanism: str = ""
    explanation: str = ""
    problem: str = ""
    lookups: int = 0


def check(
    ip: str, helo: str, sender: str, *, receiver: str, now: float = 0.0, explain: bool = True
) -> Asking[SpfResult]:
    """Whether `ip` may send as `sender` ("": the null sender, so `helo` is asked). Never raises but what is thrown in
    that is no DnsError.

    `receiver` and `now` (seconds since 1970) only go into explanations; `explain` False leaves them out.
    """
    scope: Literal["mfrom", "helo"] = "mfrom" if sender else "helo"
    local, _, domain = sender.rpartition("@") if sender else ("", "", helo)
    domain = domain.removesuffix(".")
    try:
        address: Address = ip_address(ip.partition("%")[0])
    except ValueError:
        return SpfResult("none", domain.lower(), scope, problem=f"{_shown(ip)} is no address")
    if not domain.isascii():
        try:
            domain = a_labels(domain)  # RFC 8616 §4: DNS and macros see A-labels, whatever the client wrote
        except ValueError:
            pass  # which no name in DNS is, so it has no record
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped  # RFC 7208 §5: an IPv4 address, whatever the socket was
    if not _can_have_a_record(domain):
        problem = f"{_shown(domain)} is not a domain that can have an SPF record"
        return SpfResult("none", domain.lower(), scope, problem=problem)
    # RFC 7208 §4.3: a sender without a local part is the postmaster's.
    facts = Facts(address, local or "postmaster", domain, helo, domain, receiver=receiver or "unknown", now=now)
    evaluation = _Evaluation(facts)
    try:
        outcome = yield from evaluation.host(domain)
    except _Ended as ended:
        return SpfResult(ended.result, domain.lower(), scope, problem=ended.problem, lookups=evaluation.terms)
    explanation = ""
    if explain and outcome.result == "fail" and outcome.explanation:
        explanation = yield from evaluation.explain(outcome)
    return SpfResult(
        outcome.result, domain.lower(), scope, outcome.mechanism, explanation, outcome.problem, evaluation.terms
    )  # fmt: skip


def _can_have_a_record(domain: str) -> bool:
    """RFC 7208 §4.3: a name of several labels; so no address, with or without the brackets that HELO gives it."""
    return is_name(domain) and "." in domain and domain[0] != "[" and not domain.rpartition(".")[2].isdigit()


class _Ended(Exception):
    """temperror or permerror: the check ends there, in whatever record it stands (RFC 7208 §5)."""

    def __init__(self, result: Literal["temperror", "permerror"], problem: str) -> None:
        super().__init__(problem)
        self.result, self.problem = result, problem


@dataclass(frozen=True, slots=True)
class _Outcome:
    result: Qualifier | Literal["none"]
    domain: str  # whose record decided: macros of its exp= mean that domain
    mechanism: str = ""
    explanation: MacroString = ()
    problem: str = ""


class _Evaluation:
    """One check: what is counted over all its records, and what is known of the peer's names."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._ip = int(facts.ip)
        self._bits = facts.ip.max_prefixlen
        self._kind: Kind = "A" if facts.ip.version == 4 else "AAAA"
        self.terms = 0
        self._void = 0
        self._term_was_void = False
        self._counting = True
        self._names: tuple[str, ...] | None = None  # of the peer's address; None: not asked yet
        self._confirmed: dict[str, bool] = {}

    def host(self, domain: str, *, first: bool = True) -> Asking[_Outcome]:
        """check_host() of RFC 7208 §4; `first` False for the domain of an include."""
        redirected = False
        while True:
            record = yield from self._record(domain)
            if record is None:
                if redirected:
                    # RFC 7208 §6.1: a redirect that leads nowhere is an error of the record.
                    self._permerror(f"{_shown(domain)}, to which it redirects, has no SPF record")
                return _Outcome("none", domain, problem=f"{_shown(domain)} has no SPF record")
            for directive in record.directives:
                if (yield from self._matches(directive, domain)):
                    return _Outcome(directive.result, domain, _shown(directive.text), record.explanation)
            if not record.redirect:
                return _Outcome("neutral", domain)  # RFC 7208 §4.7
            self._count()
            target = yield from self._target(record.redirect, domain)
            if target is None:
                self._permerror("redirect= names no domain")
            # RFC 7208 §6.1: as if the other domain had been asked in the first place; its exp= counts, ours does not.
            domain, redirected = target, True

    def explain(self, outcome: _Outcome) -> Asking[str]:
        """The explanation of a fail (RFC 7208 §6.2); "" where anything about it is wrong. Counts towards no limit."""
        self._counting = False
        try:
            name = yield from self._target(outcome.explanation, outcome.domain)
            if name is None:
                return ""
            answer = yield Question(name, "TXT")
            if len(answer) != 1 or len(answer[0]) > MAX_EXPLANATION:
                return ""
            parts = macro_string(answer[0].decode("ascii"), explanation=True)
            facts = yield from self._facts_for(parts, outcome.domain)
        except (DnsError, _Ended, MacroError, UnicodeDecodeError):
            return ""
        # Values may hold anything that an SMTP client can say.
        text = expand(parts, facts)[:MAX_SHOWN]
        return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)

    # --- one record -----------------------------------------------------------------------------------------------

    def _record(self, domain: str) -> Asking[Record | None]:
        if not _can_have_a_record(domain):
            return None
        try:
            answer = yield Question(domain, "TXT")
        except (NoSuchName, NoAnswer):
            return None
        except DnsError as error:
            raise _Ended("temperror", f"the SPF record of {_shown(domain)} could not be asked for: {error}") from None
        texts = select(answer)
        if len(texts) > 1:
            self._permerror(f"{_shown(domain)} has {len(texts)} SPF records, and only one is allowed")
        if not texts:
            return None
        try:
            return parse(texts[0])
        except RecordError as error:
            self._permerror(f"the SPF record of {_shown(domain)} is wrong: {error}")

    def _matches(self, directive: Directive, domain: str) -> Asking[bool]:
        match directive.name:
            case "all":
                return True
            case "ip4":
                # RFC 7208 §5.6: an address matches networks of its own family only.
                return self._bits == 32 and not (self._ip ^ directive.network) >> (32 - directive.prefix4)
            case "ip6":
                return self._bits == 128 and not (self._ip ^ directive.network) >> (128 - directive.prefix6)
        self._count()
        target: str | None = domain
        if directive.target:
            target = yield from self._target(directive.target, domain)
        if target is None:
            if directive.name == "include":
                self._permerror(f"{_shown(directive.text)} names no domain")
            # RFC 7208 §4.8 leaves open what a name is that DNS cannot hold; a name that does not exist, as in §4.3.
            return False
        match directive.name:
            case "a":
                return (yield from self._has_address(target, directive))
            case "mx":
                return (yield from self._mx(target, directive))
            case "exists":
                # RFC 7208 §5.7: A, for IPv6 peers too.
                return bool((yield from self._ask(target, "A")))
            case "ptr":
                return (yield from self._ptr(target))
            case _:
                return (yield from self._include(target))

    def _include(self, target: str) -> Asking[bool]:
        outcome = yield from self.host(target, first=False)
        if outcome.result == "none":
            self._permerror(f"{_shown(target)}, which it includes, has no SPF record")  # RFC 7208 §5.2
        return outcome.result == "pass"

    def _has_address(self, name: str, directive: Directive) -> Asking[bool]:
        shift = 32 - directive.prefix4 if self._bits == 32 else 128 - directive.prefix6
        answer = yield from self._ask(name, self._kind)
        return any(not (self._ip ^ int(ip_address(each))) >> shift for each in answer)

    def _mx(self, target: str, directive: Directive) -> Asking[bool]:
        answer = yield from self._ask(target, "MX")
        if len(answer) > MAX_MX:
            self._permerror(f"{_shown(target)} has more than {MAX_MX} MX records")
        for _, name in answer:
            # A null MX (RFC 7505) is "". RFC 7208 §5.4: without MX its own address does not count.
            if is_name(name) and (yield from self._has_address(name, directive)):
                return True
        return False

    # --- the peer's names -----------------------------------------------------------------------------------------

    def _ptr(self, target: str) -> Asking[bool]:
        target = target.lower()
        for name in (yield from self._peer_names()):
            if (name == target or name.endswith("." + target)) and (yield from self._leads_back(name)):
                return True
        return False

    def _validated(self, domain: str) -> Asking[str]:
        """The value of `%{p}` (RFC 7208 §7.3): the domain itself, else a name below it, else any, else "unknown"."""
        domain = domain.lower()
        names = yield from self._peer_names()
        for name in sorted(names, key=lambda name: (name != domain, not name.endswith("." + domain))):
            if (yield from self._leads_back(name)):
                return name
        return "unknown"

    def _peer_names(self) -> Asking[tuple[str, ...]]:
        if self._names is None:
            self._names = ()
            # RFC 7208 §5.5: an error there is no match, since the publisher of the record has no part in it.
            try:
                answer = yield from self._ask(str(self._facts.ip), "PTR")
            except _Ended as ended:
                if ended.result == "permerror":
                    raise
                answer = ()
            self._names = tuple(name.lower().removesuffix(".") for name in answer[:MAX_PTR])
        return self._names

    def _leads_back(self, name: str) -> Asking[bool]:
        """Whether the peer's address is one of this name's."""
        if name not in self._confirmed:
            answer: Answer = ()
            if is_name(name):
                try:
                    answer = yield Question(name, self._kind)
                except DnsError:
                    answer = ()  # RFC 7208 §5.5: skipped
            self._confirmed[name] = any(int(ip_address(each)) == self._ip for each in answer)
        return self._confirmed[name]

    # --- names and questions --------------------------------------------------------------------------------------

    def _target(self, spec: MacroString, domain: str) -> Asking[str | None]:
        """A domain-spec written out; None for what is no name in DNS."""
        if len(spec) == 1 and isinstance(spec[0], str):
            name = spec[0].removesuffix(".")  # nearly all there are
            return name if is_name(name) else None
        # RFC 8616 §4: a local part outside ASCII matches nothing.
        if not self._facts.local.isascii() and letters(spec) & {"s", "l"}:
            return None
        facts = yield from self._facts_for(spec, domain)
        name = target_name(spec, facts)
        return name if is_name(name) else None

    def _facts_for(self, parts: MacroString, domain: str) -> Asking[Facts]:
        validated = "unknown"
        if "p" in letters(parts):
            validated = yield from self._validated(domain)
        return replace(self._facts, domain=domain, validated=validated)

    def _ask(self, name: str, kind: Kind) -> Asking[Answer]:
        """The answer, () where there is none; ends the check where DNS is away or too much was asked in vain."""
        try:
            answer = yield Question(name, kind)
        except NoAnswer as error:
            # Only the AAAA is missing of a host that an IPv6 client's domain names: its A was not asked. Large senders
            # reach us over IPv6 and publish hosts without; counted, a correct record would be permerror by the way
            # that a message took.
            if kind != "AAAA":
                self._vain(error)
            return ()
        except NoSuchName as error:
            self._vain(error)
            return ()
        except DnsError as error:
            raise _Ended("temperror", f"{kind} of {_shown(name)} could not be asked for: {error}") from None
        return answer

    def _vain(self, error: DnsError) -> None:
        # RFC 7208 §4.6.4 limits the terms whose look-ups are void: an mx with three dead names is one.
        if not self._counting or self._term_was_void:
            return
        self._term_was_void = True
        self._void += 1
        if self._void > MAX_VOID:
            self._permerror(f"more than {MAX_VOID} terms of its SPF records name what does not exist: {error}")

    def _count(self) -> None:
        """One more term that asks DNS (RFC 7208 §4.6.4)."""
        self._term_was_void = False
        self.terms += 1
        if self.terms > MAX_TERMS:
            self._permerror(f"more than {MAX_TERMS} terms of its SPF records ask DNS")

    def _permerror(self, problem: str) -> NoReturn:
        raise _Ended("permerror", problem)


def _shown(text: str) -> str:
    return (text if text.isprintable() else ascii(text))[:100]
