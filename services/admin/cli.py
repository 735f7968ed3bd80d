"""`mailstead`: the command line, run in the admin container (`scripts/mailstead` calls it there).

The nouns and verbs are those that users of docker-mailserver know. Exit status: 0 done; 1 not done, with one line on
stderr; 2 a wrong command. `--json` prints what the API answered.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from services.admin import cli_directory as directory
from services.admin import cli_explain as explained
from services.admin import cli_junk as junk
from services.admin import cli_mail as mail
from services.admin import cli_update as update
from services.admin.cli_client import ADMIN_DIR, Client, Failed, Output, Usage, plain

Command = Callable[[Client, Output, argparse.Namespace], int | None]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    grammar = parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        grammar.print_help()
        return 2
    given = grammar.parse_args(arguments)
    try:
        client = Client(os.path.join(given.data, "admin") if given.data else ADMIN_DIR)
        return given.run(client, Output(given.json), given) or 0
    except Failed as error:
        print(f"mailstead: {plain(str(error))}", file=sys.stderr)
        return 1
    except Usage as error:
        print(f"mailstead: {plain(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


class _Nouns:
    """Adds verbs to nouns, each with the options that all commands have."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(prog="mailstead", description="Mailstead's command line.")
        self.parser.add_argument("--json", action="store_true", help="print JSON")
        self.parser.add_argument("--data", default="", help="data folder of a stack that runs as one process")
        self.parser.add_argument("--lang", default="en", help="language of explanations: en or zh (default: your LANG)")
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
        self._common.add_argument("--data", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        self._common.add_argument("--lang", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        self._nouns = self.parser.add_subparsers(metavar="COMMAND", required=True)

    def noun(self, name: str, words: str, *aliases: str) -> Any:
        """`name`'s verbs."""
        found = self._nouns.add_parser(name, help=words, description=words, aliases=list(aliases))
        return found.add_subparsers(metavar="VERB", dest="verb", required=True)

    def verb(self, verbs: Any, name: str, run: Command, words: str) -> argparse.ArgumentParser:
        """One verb of a noun."""
        found: argparse.ArgumentParser = verbs.add_parser(name, help=words, description=words, parents=[self._common])
        found.set_defaults(run=run)
        return found

    def command(self, name: str, run: Command, words: str) -> argparse.ArgumentParser:
        """A command without verbs."""
        return self.verb(self._nouns, name, run, words)


def parser() -> argparse.ArgumentParser:
    """All commands."""
    nouns = _Nouns()
    _add_accounts(nouns)
    _add_aliases_and_domains(nouns)
    _add_mail(nouns)
    _add_junk(nouns)
    _add_updates(nouns)
    return nouns.parser


def _add_accounts(nouns: _Nouns) -> None:
    verbs = nouns.noun("account", "accounts: who has a mailbox here", "email")
    add = nouns.verb(verbs, "add", directory.account_add, "make an account and its mailbox")
    add.add_argument("address")
    _password_options(add, generate=True)
    add.add_argument("--login", metavar="NAME", help="user name for log-in (default: the part before @ if it is free)")
    add.add_argument("--admin", action="store_true", help="make it an administrator")
    add.add_argument("--quota", metavar="SIZE", help="how much mail it may keep, such as 2G (default: DEFAULT_QUOTA)")
    listing = nouns.verb(verbs, "list", directory.account_list, "list all accounts")
    listing.add_argument("--deleted", action="store_true", help="those whose mail is still kept")
    password = nouns.verb(verbs, "password", directory.account_password, "set another password")
    password.add_argument("address")
    _password_options(password, generate=True)
    check = nouns.verb(verbs, "check", directory.account_check, "say whether a password would log in (exit 1: no)")
    check.add_argument("address")
    _password_options(check, generate=False)
    for name, words in (
        ("disable", "no log-in, no sending, mail is refused; what is there stays"),
        ("enable", "undo disable"),
    ):
        nouns.verb(verbs, name, directory.account_change, words).add_argument("address")
    quota = nouns.verb(verbs, "quota", directory.account_quota, "how much mail an account may keep, and does")
    quota.add_argument("address")
    quota.add_argument("size", nargs="?", help="such as 500M or 2GiB; 0: no limit (default: say what is used of it)")
    admin = nouns.verb(verbs, "admin", directory.account_change, "make an administrator, or none")
    admin.add_argument("address")
    admin.add_argument("state", choices=("on", "off"))
    login = nouns.verb(
        verbs, "login", directory.account_change, "the user name that may be used instead of the address"
    )
    login.add_argument("address")
    login.add_argument("name", help='"" takes it away')
    delete = nouns.verb(verbs, "del", directory.account_del, "delete an account; its mail is kept for 30 days")
    delete.add_argument("address")
    delete.add_argument("--purge", action="store_true", help="destroy its mail at once, also what a del has kept")
    delete.add_argument("--yes", action="store_true", help="do not ask")


def _password_options(command: argparse.ArgumentParser, *, generate: bool) -> None:
    command.add_argument("password", nargs="?", help="asked for at a terminal; as an argument others here may see it")
    command.add_argument("--stdin", action="store_true", help="read it from the first line of stdin")
    if generate:
        command.add_argument("--generate", action="store_true", help="make one up and print it")


def _add_aliases_and_domains(nouns: _Nouns) -> None:
    verbs = nouns.noun("alias", "aliases: addresses that lead to others")
    add = nouns.verb(verbs, "add", directory.alias_add, "send mail for an address (also) to another")
    add.add_argument("source", help="an address here, or @domain for everything that has no account")
    add.add_argument("target", help="an address, here or elsewhere")
    add.add_argument("--keep-copy", action="store_true", help="and keep it in the source's own mailbox (an account)")
    nouns.verb(verbs, "list", directory.alias_list, "list all aliases")
    delete = nouns.verb(verbs, "del", directory.alias_del, "delete an alias, or one of its targets")
    delete.add_argument("source")
    delete.add_argument("target", nargs="?")
    verbs = nouns.noun("domain", "domains: whose mail comes here")
    nouns.verb(verbs, "add", directory.domain_add, "receive mail for a domain").add_argument("name")
    nouns.verb(verbs, "list", directory.domain_list, "list all domains")
    nouns.verb(verbs, "del", directory.domain_del, "no longer; it must be empty").add_argument("name")
    words = "domain aliases: every address answers as the other domain's"
    aliased = verbs.add_parser("alias", help=words, description=words)
    verbs = aliased.add_subparsers(metavar="VERB", required=True)
    add = nouns.verb(verbs, "add", directory.domain_alias_add, "let a domain answer as another that is here")
    add.add_argument("name", metavar="NEW")
    add.add_argument("existing", metavar="EXISTING")
    nouns.verb(verbs, "list", directory.domain_alias_list, "list all domain aliases")
    nouns.verb(verbs, "del", directory.domain_alias_del, "mail for it is refused from then on").add_argument("name")
    verbs = nouns.noun("dkim", "DKIM: the signatures' public keys")
    show = nouns.verb(verbs, "show", directory.dkim_show, "print the TXT records, split at 255 bytes")
    show.add_argument("domain", nargs="?", help="default: all")
    verbs = nouns.noun("dns", "DNS: what to set for a domain")
    show = nouns.verb(verbs, "show", directory.dns_show, "print every record to set, and why")
    show.add_argument("domain", nargs="?", help="default: all")
    show.add_argument("--zone", action="store_true", help="as lines of a zone file")


def _add_mail(nouns: _Nouns) -> None:
    verbs = nouns.noun("queue", "the queue: mail that waits to be sent")
    listing = nouns.verb(verbs, "list", mail.queue_list, "list what waits, and why")
    listing.add_argument("--limit", type=_count, default=100)
    nouns.verb(verbs, "show", mail.queue_show, "one message, and what each server said").add_argument("id")
    for name, words in (
        ("retry", "try it again now"), ("hold", "hold it back"), ("release", "let it go on"),
        ("drop", "drop it: it is not sent, and nobody is told"),
    ):  # fmt: skip
        command = nouns.verb(verbs, name, mail.queue_change, words)
        command.add_argument("id", nargs="?" if name in ("retry", "release") else None)
        if name in ("retry", "release"):
            command.add_argument("--all", action="store_true", help="everything")
    trace = nouns.command("trace", mail.trace, "what became of a message or a connection, and why (exit 1: unknown)")
    trace.add_argument("query", metavar="ADDRESS|MESSAGE-ID|ID|IP")
    trace.add_argument("--limit", type=_count, default=20, help="how many messages (default 20)")
    words = "why: each rule, weight, DNS answer, score and reply, and what you can do (exit 1: unknown)"
    explain = nouns.command("explain", explained.explain, words)
    explain.add_argument("query", metavar="IP|ADDRESS|MESSAGE-ID|ID")
    explain.add_argument("--limit", type=_count, default=5, help="how many messages or connections (default 5)")
    test = nouns.command("send-test", mail.send_test, "send a test message and show what becomes of it")
    test.add_argument("to")
    test.add_argument("--from", dest="sender", metavar="ADDRESS", help="whose it is (default: an administrator's)")
    test.add_argument("--no-wait", action="store_true", help="do not wait for what becomes of it")
    verbs = nouns.noun("ban", "bans: who is refused for a while after wrong passwords")
    nouns.verb(verbs, "list", mail.ban_list, "list all bans")
    nouns.verb(verbs, "del", mail.ban_del, "lift a ban").add_argument("key", help="an address or an account")
    nouns.command("status", mail.status, "whether mail flows, and how each service is (exit 1: it does not)")
    nouns.command("first-login", mail.first_login, "the first administrator's password, until it is changed")


def _add_junk(nouns: _Nouns) -> None:
    verbs = nouns.noun("junk", "the junk filter: what it has learned, and how well it would do")
    words = "try the filter on your own mail: train it with the oldest, judge the rest, and print what came out"
    trial = nouns.verb(verbs, "evaluate", junk.evaluate, words)
    trial.add_argument("ham", metavar="HAM", help="good mail: an mbox file, a Maildir, or a folder of messages")
    trial.add_argument("spam", metavar="SPAM", help="junk mail, the same")
    trial.add_argument(
        "--trained", type=_number, default=500, metavar="N", help="sort so many first, half of each kind (default 500)"
    )
    trial.add_argument("--threshold", type=float, default=5.0, metavar="SCORE", help="junk from this score on (5.0)")
    trial.add_argument("--missed", action="store_true", help="also list the junk that was missed")
    status = nouns.verb(verbs, "status", junk.status, "how much an account has sorted, and how old its model is")
    status.add_argument("account", nargs="?", help="default: all")


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def _add_updates(nouns: _Nouns) -> None:
    verbs = nouns.noun("update", "updates: newer images, tried out before they stay")
    nouns.verb(verbs, "status", update.update_status, "what is new, and what is under way")
    nouns.verb(verbs, "check", update.update_check, "compare the images with their registries now")
    run = nouns.verb(verbs, "run", update.update_run, "replace what is newer; it goes back by itself if mail stops")
    run.add_argument("service", nargs="*", help="only these (default: those whose labels let it)")
    run.add_argument("--dry-run", action="store_true", help="only say what would be done")
    run.add_argument("--local", action="store_true", help="to images that were built on this machine")
    nouns.verb(verbs, "rollback", update.update_rollback, "go back to the images before the last update")
    history = nouns.verb(verbs, "history", update.update_history, "what was done, and why it stayed or went back")
    history.add_argument("--limit", type=_count, default=10)
    history.add_argument("--steps", action="store_true", help="each step with its time")
    nouns.command("gate", update.gate, "try now whether mail flows: in, out, read, deleted (exit 1: it does not)")


def _count(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return number


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `mailstead queue list | head` ends without words
    sys.exit(main())
