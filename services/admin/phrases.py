"""Sentences that arrive in English from below (the directory, other rooms, the record), said in the reader's language.

Below the page nobody knows who reads: an error is a sentence in English, an event's reason too. Here are those that the
house itself says, with a {name} where a value stands; one is recognised by its fixed words, and its values go into the
translation. What is not here (another server's reply, a fault's text) is shown as it is. Reasons that were joined by
semicolons, and sentences within sentences, are each looked up.

A test takes every error of the directory from its source and looks it up here.
"""

from __future__ import annotations

import re

from services.admin.phrases_filter import FILTER_PHRASES
from services.admin.phrases_proof import PROOF_PHRASES
from services.admin.phrases_rules import RULES_PHRASES
from services.admin.phrases_sender import SENDER_PHRASES
from services.admin.phrases_verdict import VERDICT_PHRASES
from services.admin.text import ENGLISH, _, language, mark

PHRASES = (
    # --- directory/addresses.py
    mark("the domain is empty"),
    mark("the domain {domain}... is longer than {count} characters"),
    mark("{text} is a bare name; a mail domain has at least one dot, such as family.example"),
    mark("{text} looks like an IP address, not like a domain"),
    mark("{text} is not an address such as anna@family.example"),
    mark("{address}... is longer than {count} characters"),
    mark("{address}: the part after + is a tag of the account before it; make an alias instead"),
    mark("{address}: {local} is the name that bounces come from; choose another"),
    mark("{text} is not a user name: letters, digits, dot, hyphen and underscore, at most 64"),
    mark("{text}: the part before @ is longer than {count} characters"),
    mark("{text}: the part before @ must be ASCII letters; many servers cannot send to others"),
    mark("{text}: the part before @ has a character that mail addresses here do not have"),
    mark("{text} is not a domain name: {label} is not a label of letters, digits and hyphens"),
    mark("{text} is not a domain name: {error}"),
    # --- directory/alias_targets.py, changes.py, publish.py
    mark("{target} is neither an account nor an alias here"),
    mark("deleting the alias {source} would send mail round in a circle: {way}"),
    mark("{change} would send mail round in a circle: {way}"),
    mark("{change} would lead through more than {count} aliases, one behind the other"),
    mark("{domain} cannot be an alias of itself"),
    mark("{domain} is itself an alias of {other}; name {name}"),
    mark("{name} is an alias of {domain} already; delete that first"),
    mark("{name} is an alias of {domain}; delete that first"),
    mark("{name} is an alias of {domain}; use the same address there"),
    mark("there is no domain alias {domain} here"),
    mark("{address} is no account: add the mailbox that keeps the copy as one more target"),
    mark("a quota is a number of bytes; 0 is no limit"),
    mark("there is no account {address}"),
    mark("the user name {login} belongs to {address}"),
    mark("{address} is the only administrator; make another one first"),
    mark("the domain {domain} is here already"),
    mark("there is no domain {domain} here"),
    mark("{domain} still has {accounts} accounts and {aliases} aliases; delete them first"),
    mark("{domain} is the only domain; add another first"),
    mark("the domain {domain} is not here; add it first: scripts/mailstead domain add {name}"),
    mark("{address} is an account here"),
    mark("{address} is reserved: updates are tried out with it"),
    mark("the domain {domain} is not here; an alias answers for an address of ours"),
    mark("the domain {domain} is not here"),
    mark("the account {address} is here already"),
    mark("the mail of the deleted account {address} is still being put away; try again later"),
    mark("there is no deleted account {address}"),
    mark("{address} is in use again; delete it first, or its new mail would go too"),
    mark("{source} is one address; it cannot go to all of {target}"),
    mark("there is no alias {alias}"),
    mark("{error}; it is tried again by itself"),
    mark("the directory could not be published: {error}"),
    mark("the directory is saved but could not be published: {error}"),
    # --- directory/passwords.py
    mark("the password is shorter than {count} characters"),
    mark("the password is longer than {count} bytes"),
    mark("the password has a control character (a line break, a tab), which mail clients cannot type"),
    mark("the password is the address"),
    mark("too many log-ins are being checked; try again in a few seconds"),
    # --- admin
    mark("too many log-ins at once from there; try again in a few seconds"),
    mark("too many wrong passwords; try again later"),
    mark("wrong address or password"),
    mark("{account} is no administrator"),
    mark("the account is no administrator"),
    mark("wrong name or password"),
    mark("banned until {time}: {reason}"),
    mark("{room} does not answer: {error}"),
    mark("{room} does not answer"),
    mark("{room} gave an answer that is not JSON"),
    mark("{room} gave an odd answer"),
    mark("there is no ban on {key}"),
    mark("the mailbox of {address} is made as soon as imap answers"),
    mark("the mail of {address} is put away as soon as imap answers"),
    mark("the DKIM keys of {domain} are made as soon as dkim answers"),
    mark("the DKIM records are missing here: {error}"),
    mark("the record cannot be indexed: {error}"),
    mark("it is {state}"),
    mark("an update is running"),
    # --- imap, asked for a person's junk and rules
    mark("the message is not there any more"),
    mark("it could not be moved: {error}"),
    mark("the account is in use by another process; try again"),
    mark("the mailbox cannot be opened: {error}"),
    # --- rules.py
    mark("Nothing was chosen."),
    mark("What shall be looked for? A word, a name, an address."),
    mark("Into which folder?"),
    mark("A folder's name, with / between it and the one above."),
    mark("An address such as anna@family.example."),
    mark("The last day is before the first."),
    mark("At most {count} characters."),
    mark("What shall the answer say?"),
    mark("One line, without control characters."),
    mark("A day such as {day}."),
    mark("filter rules of {address} changed"),
    # --- changes, as operations.py records them
    mark("domain {domain} added"),
    mark("domain {domain} answers as {other}"),
    mark("domain {domain} deleted"),
    mark("account {address} added"),
    mark("password of {address} changed"),
    mark("account {address} deleted; its mail is destroyed"),
    mark("account {address} deleted; its mail is kept for 30 days"),
    mark("account {address}: enabled True"),
    mark("account {address}: enabled False"),
    mark("account {address}: administrator True"),
    mark("account {address}: administrator False"),
    mark("account {address}: quota {bytes}"),
    mark("account {address}: user name {login}"),
    mark("alias {source} → {target} added, and a copy is kept"),
    mark("alias {source} → {target} added"),
    mark("alias {source} → {target} deleted"),
    mark("queue: retry {id}"),
    mark("queue: hold {id}"),
    mark("queue: release {id}"),
    mark("queue: drop {id}"),
    mark("ban on {key} lifted"),
    mark("asked for a look at the registries"),
    mark("began the update {id}"),
    mark("began to go back to the images before the last update ({id})"),
    mark("tried whether mail flows: it does not"),
    mark("tried whether mail flows: it does"),
    # --- an update's plan, and what registries say
    mark("its registry has another image"),
    mark("it runs what its registry has"),
    mark("it was built on this machine: `scripts/update` replaces it"),
    mark("the disk is full"),
    mark("the registry was not asked"),
    mark("the registry could not be asked ({words})"),
    mark("the registry is not reachable ({words})"),
    mark("the registry has no such image ({words})"),
    mark("the registry wants a log-in, or has no such image ({words})"),
    mark("the registry asks to wait: too many questions from this address ({words})"),
    mark("the registry did not answer in time ({words})"),
    mark("the registry's name cannot be resolved ({words})"),
    mark("the registry's certificate is not trusted ({words})"),
    mark("the registry sent a damaged image ({words})"),
    mark("`scripts/update` on the host replaces it"),
    mark("not asked for"),
    mark("its label says so"),
    mark("it does not run ({state})"),
    mark("its name means another image by now"),
    mark("it runs what its name means on this machine"),
    mark("the last update did not change it"),
    mark("back to what ran before the last update"),
    mark("it is only watched: `scripts/mailstead update run` replaces it"),
    mark("an update is running: nothing can be changed until it is over; try again in a minute"),
    # --- receiving
    mark("less is free on the disk than the reserve (DISK_RESERVE_PERCENT, DISK_RESERVE_BYTES)"),
    mark("the disk has less free than the reserve"),
    mark("admin has not published the list of addresses yet"),
    mark("no list of addresses is published: mail waits at its senders"),
    mark("{address} is in no domain that is served here"),
    mark("no account, alias or catch-all has this name"),
    mark("{address} is disabled and gets no copy"),
    mark("{address} is disabled"),
    mark("{address} leads nowhere"),
    mark("{count} Received lines"),
    mark("its header does not end within {count} KiB"),
    mark("its Delivered-To names the recipient: it came back"),
    mark("left out {count} places where it has been"),
    mark("no enabled administrator is there to answer it"),
    mark("its aliases lead to more than {count} addresses"),
    mark("its aliases only lead round in a circle, at {address}"),
    mark("its aliases lead to {address}, which does not exist"),
    mark("the address has no domain"),
    mark("it was there already"),
    mark("the mailbox could not be written: {error}"),
    mark("imap made no mailbox: {error}"),
    mark("every peer seems to come from the gateway {peer}: nobody is banned or limited by that address"),
    # --- sending
    mark("{hop} is this server, which does not serve that domain: the mail would go in a circle"),
    mark("no server answered"),
    mark("no answer in time"),
    mark("the administrator dropped it from the queue"),
    mark("it was taken before: nothing is sent twice"),
    mark("told {address} that its mailbox is {share} % full"),
    mark("it comes from {address}, where it was forwarded to: not sent there again"),
    mark("junk is not forwarded: {addresses} left out"),
    mark("kept in the Junk of {address} instead"),
    mark("{address} holds {used} of {quota} MiB: there is no room for it"),
    mark("its sender asked to be told that it was {action}, which could not be: {why}"),
    mark("its sender asked to be told that it was {action}"),
    mark("not tried: {why}"),
    mark("given up after {count} hours"),
    mark("it was refused"),
    mark("{why}: its sender is told"),
    mark("{why}: it is a report itself, and nobody is told of those"),
    mark("{why}: it has no sender to tell"),
    mark("{why}: nobody is told, as its sender asked"),
    mark("{why}: nothing proves who sent it, and the alias's owner was told of {count} others today"),
    mark("{why}: nothing proves who sent it, so {owner} is told, whose alias it is"),
    mark("its sender asked to be told, and the next server makes no reports: they are told that it was handed on"),
    mark("today's {count} forwards are used up (FORWARD_PER_DAY)"),
    mark("{count} of {limit} forwards are used up today (FORWARD_PER_DAY)"),
    mark("the sender requires TLS all the way, which {server} does not promise"),
    mark("the sender requires TLS with a right certificate: {why}"),
    mark("an error of this server; see its log"),
    mark("it is late: its sender is told that it is still tried"),
    mark("{domain} has no DKIM key: it goes unsigned"),
    mark("{host} port {port} did not answer in time"),
    mark("cannot connect to {host} port {port}: {why}"),
    mark("the server does not offer STARTTLS"),
    mark("the server refuses STARTTLS: {reply}"),
    mark("the TLS handshake failed: {error}"),
    mark("the connection was lost"),
    mark("Connection refused"),
    mark("connection refused"),
    mark("{code} The domain {domain} does not exist"),
    mark("{code} The domain {domain} takes no mail"),
    mark("{code} No mail server of {domain} has an address"),
    mark("{code} The mail servers of {domain} cannot be looked up now: {error}"),
    mark("{code} The relay's name cannot be looked up now: {error}"),
    mark("{code} The mail server of {domain} is this one, which does not serve that domain"),
    # --- log-ins
    mark("no such account"),
    mark("wrong password"),
    mark("wrong user name or password"),
    mark("the account is disabled"),
    mark("the account was disabled or deleted after the log-in"),
    mark("not logged in"),
    mark("log-ins are not possible yet"),
    mark("too many log-ins at once; try again"),
    mark("address banned: {reason}"),
    mark("account banned: {reason}"),
    mark("pair banned: {reason}"),
    mark("banned: {reason}"),
    mark("{count} wrong passwords from {sources} address"),
    mark("{count} wrong passwords from {sources} addresses"),
    mark("{count} wrong passwords"),
    mark("a wrong password for an account under attack"),
    mark("too many bad commands"),
    mark("the client does not read what it asked for"),
    mark("commands sent ahead of the TLS handshake"),
    mark("the handshake was not finished in time"),
    # --- keys, certificates, updates
    mark("made a DKIM key for {domain}; publish its record (mailstead dkim show {name})"),
    mark("the DKIM keys of {domain} cannot be used: {error}"),
    mark("a new certificate for {names} is given to all listeners"),
    mark("every listener serves the certificate {serial}"),
    mark("the certificate expires on {day} and nobody has renewed it"),
    mark("this stack runs without Docker: whoever installed it updates it"),
    mark("this stack runs without Docker: there is nothing to check"),
    mark("Docker did not answer through {url}: {error}"),
    mark("Docker did not list the containers: {error}"),
    mark("stopped by an internal error: {error}"),
    mark("there is no message {id} in the queue"),
    *PROOF_PHRASES,
    *SENDER_PHRASES,
    *VERDICT_PHRASES,
    *RULES_PHRASES,
    # --- how long a container runs, in Docker's words
    mark("Up {time} (healthy)"),
    mark("Up {time} (unhealthy)"),
    mark("Up {time}"),
    mark("About a minute"),
    mark("About an hour"),
    mark("Less than a second"),
    mark("{count} seconds"),
    mark("{count} minutes"),
    mark("{count} hours"),
    mark("{count} days"),
    mark("{count} weeks"),
    mark("{count} months"),
    *FILTER_PHRASES,
    # --- a room's name before its sentence, the widest last
    mark("{room}: {sentence}"),
)

DEEPEST = 4  # a sentence in a sentence; a hostile one that nests further is shown as it is
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_parsed: list[tuple[str, list[str], list[str]]] = []


def say(text: object) -> str:
    """`text` in the reader's language where it is known, else as it is."""
    english = str(text or "")
    return english if language() == ENGLISH or not english else _said(english, 0)


def phrase_of(text: str) -> str:
    """The phrase that `text` is an instance of; "" for none."""
    found = _match(text)
    return found[0] if found else ""


def _said(text: str, depth: int) -> str:
    if depth > DEEPEST:
        return text
    found = _match(text)
    if found is not None:
        phrase, values = found
        if (translated := _(phrase)) != phrase:
            return translated.format(**{name: _said(value, depth + 1) for name, value in values.items()})
    if "; " in text:
        parts = text.split("; ")
        said = [_said(part, depth + 1) for part in parts]
        return _("; ").join(said) if said != parts else text
    return text


def _match(text: str) -> tuple[str, dict[str, str]] | None:
    for phrase, literals, names in _phrases():
        if not (text.startswith(literals[0]) and text.endswith(literals[-1])):
            continue
        values, at = [], len(literals[0])
        end = len(text) - len(literals[-1])
        for literal in literals[1:-1]:
            next_at = text.find(literal, at + 1, end)
            if next_at < 0:
                break
            values.append(text[at:next_at])
            at = next_at + len(literal)
        else:
            if not names:
                if text == phrase:
                    return phrase, {}
            elif at < end and not (names[0] == "room" and not literals[0] and " " in (values or [text[at:end]])[0]):
                return phrase, dict(zip(names, [*values, text[at:end]], strict=True))
    return None


def _phrases() -> list[tuple[str, list[str], list[str]]]:
    """(phrase, its fixed words, its names); taken apart when the first is looked for."""
    if not _parsed:
        _parsed.extend(
            (phrase, _PLACEHOLDER.sub("\0", phrase).split("\0"), _PLACEHOLDER.findall(phrase)) for phrase in PHRASES
        )
    return _parsed
