"""`mailstead account|alias|domain|dkim|dns`: the nouns of the directory."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from services.admin.cli_client import (
    Client,
    Failed,
    Output,
    Usage,
    confirmed,
    given_up,
    parse_size,
    say,
    segment,
    size_text,
    time_text,
)

Arguments = argparse.Namespace


# --- accounts --------------------------------------------------------------------------------------------------------


def account_add(client: Client, out: Output, given: Arguments) -> None:
    """account add."""
    if "@" not in given.address:  # before a password is asked for, twice
        raise Failed(
            f"{given.address} is no whole address, such as {given.address}@{(_domains(client) or ['example.org'])[0]}"
        )
    body: dict[str, Any] = {"address": given.address, "administrator": given.admin, "login": given.login}
    if given.quota is not None:
        body["quota_bytes"] = parse_size(given.quota)
    body["password"] = read_password(given)
    answer = client.ask("POST", "/accounts", body)
    _tell_changed(out, answer, f"{answer['account']['address']} is ready")


def account_list(client: Client, out: Output, given: Arguments) -> None:
    """account list."""
    answer = client.ask("GET", "/accounts", deleted=str(given.deleted).lower())
    if given.deleted:
        gone = [(each["address"], time_text(each["deleted_at"])) for each in answer["accounts"]]
        out.table(answer, ("ADDRESS", "DELETED"), gone, "no deleted account's mail is kept")
        return
    rows = [
        (
            each["address"],
            each["login"] or "-",
            ("administrator" if each["administrator"] else "yes") if each["enabled"] else "disabled",
            size_text(each["used_bytes"]) + (f" of {size_text(each['quota_bytes'])}" if each["quota_bytes"] else ""),
            time_text(each["last_used"]),
        )
        for each in answer["accounts"]
    ]
    out.table(answer, ("ADDRESS", "USER NAME", "ENABLED", "MAIL", "LAST USED"), rows, "there are no accounts")


def account_password(client: Client, out: Output, given: Arguments) -> None:
    """account password."""
    path = f"/accounts/{segment(given.address)}/password"
    answer = client.ask("PUT", path, {"password": read_password(given)})
    _tell_changed(out, answer, f"{answer['account']['address']} has a new password")


def account_check(client: Client, out: Output, given: Arguments) -> int:
    """account check: exit 1 where the password would not log in."""
    body = {"password": read_password(given, twice=False)}
    answer = client.ask("POST", f"/accounts/{segment(given.address)}/check", body)
    out.answer(answer, "right" if answer["right"] else "wrong, or the account is disabled")
    return 0 if answer["right"] else 1


def account_quota(client: Client, out: Output, given: Arguments) -> None:
    """account quota: set it, or say what is used of it."""
    if given.size is not None:
        account_change(client, out, given)
        return
    answer = client.ask("GET", f"/accounts/{segment(given.address)}")
    account = answer["account"]
    used, quota = account["used_bytes"], account["quota_bytes"]
    if not quota:
        out.answer(answer, f"{account['address']} keeps {size_text(used)} and has no quota")
        return
    share = f" ({used * 100 // quota} %)" if used is not None else ""
    out.answer(answer, f"{account['address']} keeps {size_text(used)} of {size_text(quota)}{share}")


def account_change(client: Client, out: Output, given: Arguments) -> None:
    """account disable, enable, quota, admin, login."""
    changes: dict[str, dict[str, Any]] = {"disable": {"enabled": False}, "enable": {"enabled": True}}
    if given.verb == "quota":
        changes["quota"] = {"quota_bytes": parse_size(given.size)}
    elif given.verb == "admin":
        changes["admin"] = {"administrator": given.state == "on"}
    elif given.verb == "login":
        changes["login"] = {"login": given.name}
    answer = client.ask("PATCH", f"/accounts/{segment(given.address)}", changes[given.verb])
    account = answer["account"]
    words = {
        "disable": "is disabled: no log-in, no sending, mail for it is refused",
        "enable": "is enabled",
        "quota": f"may keep {size_text(account['quota_bytes'])}" if account["quota_bytes"] else "has no quota",
        "admin": "is an administrator" if account["administrator"] else "is no administrator",
        "login": f"may log in as {account['login']}" if account["login"] else "logs in by the address alone",
    }
    _tell_changed(out, answer, f"{account['address']} {words[given.verb]}")


def account_del(client: Client, out: Output, given: Arguments) -> None:
    """account del: asks at a terminal; `--purge`, which cannot be undone, asks twice or wants `--yes`."""
    terminal = sys.stdin.isatty()
    if given.purge and not given.yes and not terminal:
        raise Usage("--purge destroys the mail: say --yes as well where nobody can be asked")
    if terminal and not given.yes:
        fate = "its mail is DESTROYED" if given.purge else "its mail is kept for 30 days"
        if not confirmed(f"Delete {given.address}? Nobody can log in any more; {fate}."):
            given_up()
        if given.purge and not confirmed(f"Destroy all mail of {given.address}, for good?"):
            given_up()
    answer = client.ask("DELETE", f"/accounts/{segment(given.address)}", purge=str(given.purge).lower())
    lines = [f"{answer['deleted']} is deleted; " + ("its mail too" if given.purge else "its mail is kept for 30 days")]
    lines += [f"the alias {alias['source']} went with it" for alias in answer.get("aliases_deleted", [])]
    out.answer(answer, *lines)
    out.notes(answer)


def read_password(given: Arguments, *, twice: bool = True) -> str:
    """The password: an argument, the first line of stdin, or typed at the terminal; "" to have one made up."""
    if getattr(given, "generate", False):
        if given.password is not None or given.stdin:
            raise Usage("--generate makes the password up: give none")
        return ""
    if given.password is not None:
        if given.stdin:
            raise Usage("the password is given twice: as an argument and by --stdin")
        found = str(given.password)
    elif given.stdin or not sys.stdin.isatty():
        found = sys.stdin.readline().rstrip("\r\n")
    else:
        import getpass

        found = getpass.getpass("Password: ")
        if twice and getpass.getpass("The same again: ") != found:
            raise Failed("the two are not the same")
    if not found:
        raise Usage("no password: give it as an argument, on stdin or at the prompt, or say --generate")
    return found


def _tell_changed(out: Output, answer: Any, line: str) -> None:
    lines = [line]
    if answer.get("password"):
        lines.append(f"password: {answer['password']}")
    out.answer(answer, *lines)
    out.notes(answer)


# --- aliases ---------------------------------------------------------------------------------------------------------


def alias_add(client: Client, out: Output, given: Arguments) -> None:
    """alias add."""
    body = {"source": given.source, "target": given.target}
    if given.keep_copy:
        body["keep_copy"] = True
    answer = client.ask("POST", "/aliases", body)
    source, target = answer["alias"]["source"], answer["alias"]["target"]
    out.answer(answer, f"{source} → {target}" + (f", and a copy stays in {source}" if given.keep_copy else ""))


def alias_list(client: Client, out: Output, given: Arguments) -> None:
    """alias list."""
    answer = client.ask("GET", "/aliases")
    rows = [(alias["source"], alias["target"]) for alias in answer["aliases"]]
    out.table(answer, ("MAIL FOR", "GOES TO"), rows, "there are no aliases")


def alias_del(client: Client, out: Output, given: Arguments) -> None:
    """alias del."""
    answer = client.ask("DELETE", "/aliases", source=given.source, target=given.target)
    out.answer(answer, *(f"{alias['source']} → {alias['target']} is deleted" for alias in answer["deleted"]))


# --- domains and their records ---------------------------------------------------------------------------------------


def domain_add(client: Client, out: Output, given: Arguments) -> None:
    """domain add."""
    answer = client.ask("POST", "/domains", {"name": given.name})
    name = answer["domain"]["name"]
    out.answer(answer, f"{name} is here; its DNS records: scripts/mailstead dns show {name}")
    out.notes(answer)


def domain_list(client: Client, out: Output, given: Arguments) -> None:
    """domain list."""
    answer = client.ask("GET", "/domains")
    rows = [
        (f"{each['name']} = {each['alias_of']}" if each["alias_of"] else each["name"], str(each["accounts"]),
         str(each["aliases"]))
        for each in answer["domains"]
    ]  # fmt: skip
    out.table(answer, ("DOMAIN", "ACCOUNTS", "ALIASES"), rows, "there are no domains")


def domain_alias_add(client: Client, out: Output, given: Arguments) -> None:
    """domain alias add."""
    answer = client.ask("POST", "/domains", {"name": given.name, "alias_of": given.existing})
    name, existing = answer["domain"]["name"], answer["domain"]["alias_of"]
    records = f"its DNS records: scripts/mailstead dns show {name}"
    out.answer(answer, f"every address of {name} answers as the one of {existing}; {records}")
    out.notes(answer)


def domain_alias_list(client: Client, out: Output, given: Arguments) -> None:
    """domain alias list."""
    answer = client.ask("GET", "/domains")
    found = [each for each in answer["domains"] if each["alias_of"]]
    rows = [(each["name"], each["alias_of"]) for each in found]
    out.table({"domains": found}, ("DOMAIN", "ANSWERS AS"), rows, "there are no domain aliases")


def domain_alias_del(client: Client, out: Output, given: Arguments) -> None:
    """domain alias del."""
    answer = client.ask("DELETE", f"/domains/{segment(given.name)}", alias="true")
    out.answer(answer, f"{answer['deleted']} is deleted; its DKIM keys are kept")


def domain_del(client: Client, out: Output, given: Arguments) -> None:
    """domain del."""
    answer = client.ask("DELETE", f"/domains/{segment(given.name)}")
    out.answer(answer, f"{answer['deleted']} is deleted; its DKIM keys are kept")


def dkim_show(client: Client, out: Output, given: Arguments) -> None:
    """dkim show: the records of one domain, or of all."""
    records = []
    for domain in _domains(client, given.domain):
        records += client.ask("GET", f"/domains/{segment(domain)}/dkim")["records"]
    if out.as_json:
        out.answer({"records": records})
        return
    for record in records:
        say(f"{record['name']}. IN TXT " + " ".join(f'"{piece}"' for piece in record["chunks"]))


def dns_show(client: Client, out: Output, given: Arguments) -> None:
    """dns show: everything to set for one domain, or for all."""
    found = [client.ask("GET", f"/domains/{segment(domain)}/dns") for domain in _domains(client, given.domain)]
    if out.as_json:
        out.answer(found[0] if given.domain else {"domains": found})
        return
    for answer in found:
        if given.zone:
            print(answer["zone"], end="")
            continue
        say(f"{answer['domain']}: mail is sent {answer['sending']}. Set these where the domain's DNS is kept:")
        for record in answer["records"]:
            say("")
            say(f"  {record['type']:5} {record['name']}   ({record['needed']})")
            say(f"        {record['value']}")
            say(f"        {record['why']}")
        say("")
        out.notes(answer)


def _domains(client: Client, wanted: str | None = None) -> list[str]:
    if wanted:
        return [wanted]
    return [str(each["name"]) for each in client.ask("GET", "/domains")["domains"]]
