"""Runs a checked script over a message: gives what is to be done with it.

    outcome = run(script, mail, world)
    outcome.actions      # values of `actions`, at least one: a message that nothing was said of is kept
    outcome.problem      # "" or why the script did not end by itself; then the actions are the implicit keep alone

RFC 5228 §2.10.6: an error at run time ends in the implicit keep; what the script had asked for before it is not done,
so that nobody gets half of what was meant. Never raises for anything that a script or a message says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.policy.sieve import constants
from services.policy.sieve import flags as flag_lists
from services.policy.sieve.actions import Action, Discard, FileInto, Keep, Redirect, Reject, Vacation
from services.policy.sieve.check import Script
from services.policy.sieve.mail import Mail
from services.policy.sieve.match import TooMuchWork, Work
from services.policy.sieve.state import RunError, State, World
from services.policy.sieve.tests import holds
from services.policy.sieve.values import Command, Value

# As Dovecot's sieve_max_actions and sieve_max_redirects: a person's rules do one or two things with a message; one who
# got into an account would make an amplifier of it.
MAX_ACTIONS = 32
MAX_REDIRECTS = 4
DEFAULT_DAYS = 7  # RFC 5230 §4.1
# What an octet costs of the budget where each is looked at by Python.
_TAKEN_APART = 200
_LINE_ENDS = re.compile(r"[\r\n\t ]+")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; `line` is where the problem is, 0 where it is nowhere."""

    actions: tuple[Action, ...]
    problem: str = ""
    line: int = 0


class _Stop(Exception):
    """RFC 5228 §3.3."""


def run(script: Script, mail: Mail, world: World, *, work: Work | None = None) -> Outcome:
    """Run it; `work` is its budget."""
    if script.problems:
        first = script.problems[0]
        return Outcome((Keep(implicit=True),), first.text, first.line)
    runner = _Runner(State(mail, world, work or Work()))
    try:
        runner.commands(script.commands)
    except _Stop:
        pass
    except RunError as error:
        return Outcome((Keep(implicit=True),), error.text, script.line(runner.at if error.at < 0 else error.at))
    except TooMuchWork:
        text = "the script takes more time than a message may cost"
        return Outcome((Keep(implicit=True),), text, script.line(runner.at))
    if runner.keeps:
        runner.actions.append(Keep(flag_lists.names(runner.state.internal_flags), implicit=True))
    return Outcome(tuple(runner.actions))


class _Runner:
    def __init__(self, state: State) -> None:
        self.state = state
        self.actions: list[Action] = []
        self.keeps = True  # RFC 5228 §2.10.2: the implicit keep is still due
        self.at = 0
        self._redirects = 0

    def commands(self, commands: Iterable[Command]) -> None:
        """One after the other; RFC 5228 §3.1 for if, elsif and else."""
        done = False  # a branch of the current if was taken
        for command in commands:
            self.at = command.at
            self.state.work.spend(0)
            if command.name == "if":
                done = False
            if command.name in ("if", "elsif", "else"):
                if not done and (not command.tests or holds(command.tests[0], self.state)):
                    done = True
                    self.commands(command.block)
                continue
            _COMMANDS[command.name](self, command)

    def _do(self, action: Action) -> None:
        """Take an action up, unless it was asked for already (RFC 5228 §2.10.3)."""
        self._compatible(action)
        for number, each in enumerate(self.actions):
            if _place(each) == _place(action):
                # The place is one; of the flags the last word counts.
                self.actions[number] = action
                return
        if len(self.actions) >= MAX_ACTIONS:
            raise RunError(self.at, f"there are more than {MAX_ACTIONS} actions")
        self.actions.append(action)

    def _compatible(self, action: Action) -> None:
        """RFC 5429 §2.4, RFC 5230 §4.7: a refusal excludes delivery and answers; a script answers once."""
        if isinstance(action, Vacation) and any(isinstance(each, Vacation) for each in self.actions):
            raise RunError(self.at, "vacation is there twice")
        refusals = [each for each in (*self.actions, action) if isinstance(each, Reject)]
        if len(refusals) > 1:
            raise RunError(self.at, "reject is there twice")
        if refusals and any(not isinstance(each, Reject | Discard) for each in (*self.actions, action)):
            raise RunError(self.at, "a message that is rejected cannot be kept, redirected or answered as well")

    def _flags(self, command: Command) -> tuple[str, ...]:
        """RFC 5232 §5: those of :flags, else those of the internal variable."""
        given = command.tags.get("flags")
        if given is None:
            return flag_lists.names(self.state.internal_flags)
        texts = self.state.strings(given)
        self.state.work.spend(sum(map(len, texts)) * _TAKEN_APART)
        return flag_lists.names(b" ".join(texts))

    def _text(self, value: Value | None) -> str:
        return "" if value is None else self.state.string(value).decode("utf-8", "replace")

    # --- commands

    def stop(self, command: Command) -> None:
        raise _Stop

    def keep(self, command: Command) -> None:
        self._do(Keep(self._flags(command)))
        self.keeps = False

    def discard(self, command: Command) -> None:
        self._do(Discard())
        self.keeps = False

    def fileinto(self, command: Command) -> None:
        value = self.state.string(command.arguments[0])
        name = constants.mailbox_name(value)
        if name is None:
            raise RunError(self.at, f"{value[:60].decode('utf-8', 'replace')!r} cannot be the name of a folder")
        use = self._text(command.tags.get("specialuse"))
        found = self.state.world.special_use(use) if use else ""
        create = "create" in command.tags
        self._do(FileInto(found or name, self._flags(command), create, use))
        self.keeps &= "copy" in command.tags  # RFC 3894 §3

    def redirect(self, command: Command) -> None:
        value = self.state.string(command.arguments[0])
        address = constants.mail_address(value)
        if address is None:
            raise RunError(self.at, f"{value[:60].decode('utf-8', 'replace')!r} is not a mail address")
        action = Redirect(address)
        if action not in self.actions:
            self._redirects += 1
            if self._redirects > MAX_REDIRECTS:
                raise RunError(self.at, f"there are more than {MAX_REDIRECTS} redirects")
        self._do(action)
        self.keeps &= "copy" in command.tags

    def reject(self, command: Command) -> None:
        self._do(Reject(self._text(command.arguments[0]), command.name == "ereject"))
        self.keeps = False

    def setflag(self, command: Command) -> None:
        self._flag(command, lambda flags, given: flag_lists.added(b"", given))

    def addflag(self, command: Command) -> None:
        self._flag(command, flag_lists.added)

    def removeflag(self, command: Command) -> None:
        self._flag(command, flag_lists.removed)

    def _flag(self, command: Command, change: Callable[[bytes, tuple[bytes, ...]], bytes]) -> None:
        name = command.arguments[0]
        given = self.state.strings(command.arguments[1])
        self.state.work.spend(sum(map(len, given)) * _TAKEN_APART)
        if name is None:
            self.state.internal_flags = change(self.state.internal_flags, given)
        else:
            assert isinstance(name, bytes)
            self.state.assign(self.at, name, change(self.state.flags(name), given))

    def set(self, command: Command) -> None:
        value = self.state.string(command.arguments[1])
        # RFC 5229 §4: modifiers by their precedence, not in the order written.
        for modifier, change in _MODIFIERS.items():
            if modifier in command.tags:
                self.state.work.spend(len(value) * _TAKEN_APART)
                value = change(value)
        name = command.arguments[0]
        assert isinstance(name, bytes)
        self.state.assign(self.at, name, value)

    def vacation(self, command: Command) -> None:
        tags = command.tags
        seconds = tags.get("seconds")
        days = tags.get("days", DEFAULT_DAYS)
        assert isinstance(days, int)
        period = seconds if isinstance(seconds, int) else min(days, 1_000) * constants.DAY
        sender = self._text(tags.get("from"))
        if sender and constants.mail_address(sender.encode()) is None:
            raise RunError(self.at, f"{sender[:60]!r} is not a mail address")
        text, subject, mime = self._text(command.arguments[0]), self._text(tags.get("subject")), "mime" in tags
        addresses = self.state.strings(tags["addresses"]) if "addresses" in tags else ()
        handle = self._text(tags.get("handle"))
        if not handle:
            # RFC 5230 §4.2: without a handle, the same arguments are the same answer.
            handle = "\0".join((text, subject, sender, str(mime)))
        self._do(
            Vacation(
                text,
                handle,
                # :days 0 is one day at least (RFC 5230 §4.1)
                min(
                    max(period, constants.LEAST_SECONDS if seconds is not None else constants.DAY),
                    constants.MOST_SECONDS,
                ),
                _LINE_ENDS.sub(" ", subject).strip(),
                sender,
                tuple(address.decode("utf-8", "replace").strip() for address in addresses),
                mime,
            )
        )


def _place(action: Action) -> object:
    """What makes two actions one."""
    if isinstance(action, Keep):
        return "INBOX"
    if isinstance(action, FileInto):
        return "INBOX" if action.mailbox.upper() == "INBOX" else (action.mailbox,)
    return action


# RFC 5229 §4.1, highest precedence first. As Dovecot, and as i;ascii-casemap: of ASCII letters alone.
_MODIFIERS: dict[str, Callable[[bytes], bytes]] = {
    "lower": bytes.lower,
    "upper": bytes.upper,
    "lowerfirst": lambda value: value[:1].lower() + value[1:],
    "upperfirst": lambda value: value[:1].upper() + value[1:],
    "quotewildcard": lambda value: re.sub(rb"([*?\\])", rb"\\\1", value),
    "length": lambda value: b"%d" % len(value.decode("utf-8", "replace")),
}

_COMMANDS: dict[str, Callable[[_Runner, Command], None]] = {
    "stop": _Runner.stop,
    "keep": _Runner.keep,
    "discard": _Runner.discard,
    "fileinto": _Runner.fileinto,
    "redirect": _Runner.redirect,
    "reject": _Runner.reject,
    "ereject": _Runner.reject,
    "setflag": _Runner.setflag,
    "addflag": _Runner.addflag,
    "removeflag": _Runner.removeflag,
    "set": _Runner.set,
    "vacation": _Runner.vacation,
}
