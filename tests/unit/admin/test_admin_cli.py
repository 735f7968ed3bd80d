"""`mailstead` as a person types it, against a running room: words, JSON, exit status."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from admin_room import ADMIN, PASSWORD, QUEUED

from services.admin import cli
from services.admin.cli_client import Usage, parse_size, plain, size_text

ROOT = Path(__file__).parents[3]
CLI = [sys.executable, "-m", "services.admin.cli"]


@pytest.fixture
def run(admin_room, capsys, monkeypatch):
    """Runs a command in this process: what it printed; with a status, what it complained too."""

    def run(*arguments, stdin="", status=0):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        try:
            found = cli.main(["--data", str(admin_room.folder), *arguments])
        except SystemExit as ended:
            found = ended.code
        out, error = capsys.readouterr()
        assert found == status, (arguments, out, error)
        if status == 2:
            assert error.startswith(("mailstead: ", "usage: ")) and not out
        elif status and not out:
            assert error.startswith("mailstead: ") and error.count("\n") == 1
        return out + error

    return run


def test_an_evening_with_accounts(run, api):
    assert "anna@example.test is ready" in run("account", "add", "anna@example.test", PASSWORD)
    assert run("account", "check", "anna@example.test", PASSWORD) == "right\n"
    assert "wrong" in run("account", "check", "anna@example.test", "nonsense", status=1)
    assert "new password" in run("account", "password", "anna@example.test", stdin="another password\n")
    assert run("account", "check", "anna@example.test", "--stdin", stdin="another password\n") == "right\n"
    assert "disabled" in run("account", "disable", "anna@example.test")
    assert "disabled" in run("account", "list")
    assert "enabled" in run("account", "enable", "anna@example.test")
    assert "may keep 5.0 MiB" in run("account", "quota", "anna@example.test", "5MiB")
    assert "is an administrator" in run("account", "admin", "anna@example.test", "on")
    assert "may log in as ann" in run("account", "login", "anna@example.test", "ann")
    run("alias", "add", "info@example.test", "anna@example.test")
    out = run("account", "del", "anna@example.test")
    assert "kept for 30 days" in out and "info@example.test went with it" in out
    assert "anna@example.test" in run("account", "list", "--deleted")
    assert "its mail too" in run("account", "del", "anna@example.test", "--purge", "--yes")
    assert "no deleted account" in run("account", "list", "--deleted")


def test_no_command_shows_all_of_them(capsys):
    assert cli.main([]) == 2
    assert "account" in (shown := capsys.readouterr().out) and "send-test" in shown


def test_made_up_password_is_printed(run):
    out = run("account", "add", "anna@example.test", "--generate")
    password = out.splitlines()[1].removeprefix("password: ")
    assert run("account", "check", "anna@example.test", password) == "right\n"
    assert json.loads(run("--json", "account", "password", "anna@example.test", "--generate"))["password"] != password


def test_what_is_used_of_a_quota(run, admin_room):
    admin_room.peers.answers["imap", "GET", "/v1/usage"] = {"accounts": {}}
    assert run("account", "quota", ADMIN) == f"{ADMIN} keeps - and has no quota\n"
    run("account", "quota", ADMIN, "1M")
    assert run("account", "quota", ADMIN) == f"{ADMIN} keeps - of 1.0 MiB\n"
    admin_room.peers.answers["imap", "GET", "/v1/usage"] = {"accounts": {ADMIN: {"bytes": 943_719, "messages": 3}}}
    assert run("account", "quota", ADMIN) == f"{ADMIN} keeps 922 KiB of 1.0 MiB (90 %)\n"
    assert "has no quota" in run("account", "quota", ADMIN, "0")


def test_domain_aliases(run):
    out = run("domain", "alias", "add", "alias.test", "example.test")
    assert "every address of alias.test answers as the one of example.test" in out and "dns show alias.test" in out
    assert "alias.test = example.test" in run("domain", "list")
    assert "alias.test" in run("domain", "alias", "list")
    assert "alias.test" in json.loads(run("--json", "domain", "alias", "list"))["domains"][0]["name"]
    assert "no domain alias" in run("domain", "alias", "del", "example.test", status=1)
    assert "is deleted" in run("domain", "alias", "del", "alias.test")
    assert "there are no domain aliases" in run("domain", "alias", "list")
    run("domain", "alias", status=2)


def test_a_copy_that_is_kept(run):
    out = run("alias", "add", ADMIN, "out@far.test", "--keep-copy")
    assert out == f"{ADMIN} → out@far.test, and a copy stays in {ADMIN}\n"
    assert run("alias", "list").count(ADMIN) == 3


def test_aliases_and_domains(run):
    assert "else.test is here" in run("domain", "add", "Else.test")
    assert "@else.test → admin@example.test" in run("alias", "add", "@else.test", ADMIN)
    assert "else.test" in run("domain", "list")
    assert "@else.test" in run("alias", "list")
    assert "still has" in run("domain", "del", "else.test", status=1)
    assert "is deleted" in run("alias", "del", "@else.test")
    assert "there are no aliases" in run("alias", "list")
    assert "else.test is deleted" in run("domain", "del", "else.test")


def test_records(run):
    out = run("dkim", "show", "example.test")
    assert 'm1._domainkey.example.test. IN TXT "v=DKIM1; k=rsa; p=' in out
    assert all(len(piece) <= 255 for piece in out.split('"')[1::2])
    assert json.loads(run("--json", "dkim", "show", "example.test"))["records"][0]["name"].startswith("m1.")
    out = run("dns", "show", "example.test")
    assert "MX    example.test   (required)" in out and "v=spf1 mx ~all" in out
    assert "example.test. 3600 IN MX 10 mail.example.test." in run("dns", "show", "--zone")
    assert json.loads(run("dns", "show", "example.test", "--json"))["domain"] == "example.test"
    assert "not here" in run("dns", "show", "else.test", status=1)


def test_queue(run, admin_room):
    out = run("queue", "list")
    assert "q1" in out and "bob@else.test: deferred, 2 attempts" in out and "451 4.3.0 not" in out
    assert "\x1b" not in out
    assert json.loads(run("queue", "list", "--json"))["messages"][0]["id"] == "q1"
    for verb in ("retry", "hold", "release", "drop"):
        assert "q1 " in run("queue", verb, "q1")
    for verb in ("retry", "release"):
        run("queue", verb, "--all")
        assert ("smtp-out", "POST", f"/v1/queue/{verb}", None) in admin_room.peers.asked
    attempt = {
        "at": 1.7e9,
        "address": "bob@else.test",
        "remote": "mx.else.test",
        "outcome": "deferred",
        "reply": "451 no",
    }
    admin_room.peers.answers["smtp-out", "GET", "/v1/queue/q1"] = {**QUEUED["messages"][0], "history": [attempt]}
    assert "bob@else.test  mx.else.test: deferred\n        451 no" in run("queue", "show", "q1")
    assert "required" in run("queue", "drop", "--all", status=2)
    assert "which one?" in run("queue", "retry", status=2)
    assert "or --all" in run("queue", "retry", "q1", "--all", status=2)
    admin_room.peers.answers["smtp-out", "GET", "/v1/queue"] = {"messages": []}
    assert run("queue", "list") == "nothing waits to be sent\n"
    admin_room.peers.away.add("smtp-out")
    assert "smtp-out does not answer" in run("queue", "list", status=1)


def test_bans(run, admin_room):
    ban = {"key": "192.0.2.1", "kind": "address", "until": 2e9, "reason": "guessing"}
    admin_room.peers.answers["imap", "GET", "/v1/bans"] = {"bans": [ban]}
    for room in ("imap", "smtp-out"):
        admin_room.peers.answers[room, "DELETE", "/v1/bans"] = {"lifted": [ban]}
    assert "192.0.2.1" in run("ban", "list")
    assert json.loads(run("ban", "list", "--json"))["bans"][0]["key"] == "192.0.2.1"
    assert "may log in again" in run("ban", "del", "192.0.2.1")
    admin_room.peers.answers["imap", "DELETE", "/v1/bans"] = {"lifted": []}
    admin_room.peers.answers["smtp-out", "DELETE", "/v1/bans"] = {"lifted": []}
    assert "no ban on" in run("ban", "del", "192.0.2.1", status=1)


def test_trace(run, admin_room):
    line = {
        "t": int(admin_room.context.clock() * 1e6),
        "kind": "rcpt",
        "trace": "tr1",
        "conn": "c9",
        "outcome": "reject",
    }
    line |= {"recipient": "zed@example.test", "sender": "\x1b]0;x\x07@evil", "reply": "550 5.1.1 unknown"}
    with (admin_room.folder / "events" / "smtp-in" / "00000000000000001.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    out = run("trace", "zed@example.test")
    assert "message tr1" in out and "reject" in out and "550 5.1.1 unknown" in out and "\x1b" not in out
    found = json.loads(run("--json", "trace", "zed@example.test"))
    assert [event["kind"] for event in found["events"]] == ["rcpt"]
    assert "nothing is recorded of nobody" in run("trace", "nobody@example.test", status=1)
    for nothing in ("", "  "):
        assert "of what?" in run("trace", nothing, status=2)
    assert json.loads(run("trace", "nobody@example.test", "--json", status=1))["events"] == []


def test_send_test_prints_what_becomes_of_it(run, admin_room):
    path = admin_room.folder / "events" / "smtp-in" / "00000000000000002.jsonl"

    class Submitting(dict):
        def get(self, key, default=None):
            if key == ("smtp-out", "POST", "/v1/submit"):
                (_, _, headers) = admin_room.peers.asked[-1][3]
                event = {"t": int(admin_room.context.clock() * 1e6), "trace": headers["Mailstead-Trace"], "conn": "k"}
                event |= {"kind": "delivered", "recipient": ADMIN, "outcome": "accept"}
                with path.open("a") as file:
                    file.write(json.dumps(event) + "\n")
            return super().get(key, default)

    admin_room.peers.answers = Submitting(admin_room.peers.answers)
    out = run("send-test", ADMIN)
    assert f"sent to {ADMIN}" in out and "delivered" in out
    assert {event["kind"] for event in json.loads(run("--json", "send-test", ADMIN))["events"]} >= {"delivered"}
    assert "not an address" in run("send-test", "nobody", status=1)


def test_status(run, admin_room):
    out = run("status")
    assert out.startswith("Mail flows") and "smtp-in   ok" in out and "unbound" in out
    assert "  images      current: all\n" in out
    assert "  mail in     " in out and " refused, in the last day" in out
    assert json.loads(run("status", "--json"))["state"] == "trouble"
    admin_room.peers.away.add("imap")
    assert "Mail does not flow, no answer from: imap." in run("status", status=1)


def test_first_login(run, tmp_path, admin_room):
    (tmp_path / "admin").mkdir()
    assert "no first administrator" in run("--data", str(tmp_path), "first-login", status=1)
    (tmp_path / "admin" / "first-administrator").write_text(ADMIN + "\n")
    (tmp_path / "admin" / "first-password").write_text("nefoho-kejafu\n")
    out = run("--data", str(tmp_path), "first-login")  # while the room is away
    assert ADMIN in out and "nefoho-kejafu" in out
    assert "of their own already" in run("first-login")
    assert json.loads(run("--json", "first-login")) == {"address": ADMIN, "password": None, "changed": True}


WRONG = [
    (["account", "add", "anna@example.test"], "", 2, "no password"),
    (["account", "add", "anna", PASSWORD], "", 1, "no whole address, such as anna@example.test"),
    (["account", "add", "an na@example.test", PASSWORD], "", 1, "a character that mail addresses here do not have"),
    (["account", "add", "anna@example.test", PASSWORD, "--stdin"], "x\n", 2, "given twice"),
    (["account", "add", "anna@example.test", PASSWORD, "--generate"], "", 2, "give none"),
    (["account", "add", "anna@example.test", "short"], "", 1, "shorter than 8"),
    (["account", "add", "anna@example.test", PASSWORD, "--quota", "much"], "", 2, "not a size"),
    (["account", "add", ADMIN, PASSWORD], "", 1, "here already"),
    (["account", "quota", ADMIN, "-1"], "", 2, ""),
    (["account", "del", ADMIN], "", 1, "only administrator"),
    (["account", "del", "anna@example.test", "--purge"], "", 2, "--yes"),
    (["account", "del", "nobody@example.test"], "", 1, "no account"),
    (["account"], "", 2, "required"),
    (["account", "burn", "x"], "", 2, "invalid choice"),
    (["account", "admin", ADMIN, "maybe"], "", 2, "invalid choice"),
    (["nothing"], "", 2, "invalid choice"),
    ([], "", 2, "required"),
    (["queue", "list", "--limit", "0"], "", 2, "1 to 10000"),
    (["queue", "list", "--limit", "x"], "", 2, "1 to 10000"),
    (["alias", "add", "info@example.test"], "", 2, "required"),
]


@pytest.mark.parametrize(("arguments", "stdin", "status", "words"), WRONG)
def test_wrong_commands_get_one_line_and_a_status(run, arguments, stdin, status, words):
    assert words in run(*arguments, stdin=stdin, status=status)


def test_without_a_running_room(tmp_path):
    done = subprocess.run(
        [*CLI, "--data", str(tmp_path), "status"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.startswith("mailstead: the admin service does not run")
    assert done.stderr.count("\n") == 1


def test_room_that_does_not_answer(tmp_path):
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin" / "cli.json").write_text('{"url": "http://127.0.0.1:9", "token": "x"}')
    done = subprocess.run(
        [*CLI, "--data", str(tmp_path), "status"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "does not answer" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["--help"], ["account", "--help"], ["account", "add", "--help"], ["trace", "--help"]]
)
def test_help(run, command):
    assert "usage: mailstead" in run(*command)


def test_as_a_program(admin_room, api):
    """The parts that only a process of its own has: exit status, stdin, a pipe that closes."""
    command = [*CLI, "--data", str(admin_room.folder)]
    done = subprocess.run(
        [*command, "account", "add", "anna@example.test", "--stdin"],
        cwd=ROOT, input=PASSWORD + "\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [*command, "account", "add", "x@example.test"], cwd=ROOT, input="", capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("mailstead: no password")
    piped = subprocess.Popen([*command, "dns", "show"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    piped.stdout.close()
    assert piped.wait(20) == -signal.SIGPIPE and piped.stderr.read() == b""
    piped.stderr.close()


def test_a_command_loads_nothing_heavy():
    program = (
        "import sys; from services.admin import cli; cli.parser(); "
        "print([m for m in ('fastapi','pydantic','asyncio','sqlite3','jinja2','cryptography','email.message') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['email.message']")  # http.client reads headers with it


# --- at a terminal -----------------------------------------------------------------------------------------------------


def at_terminal(admin_room, arguments, typed):
    """The output and exit status of a command whose prompts are answered one by one."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execv(CLI[0], [*CLI, "--data", str(admin_room.folder), *arguments])
    output, answered, waiting, deadline = b"", 0, list(typed), time.monotonic() + 30
    while time.monotonic() < deadline:
        readable, _, _ = select.select([terminal], [], [], 0.05)
        if readable:
            try:
                data = os.read(terminal, 4096)
            except OSError:
                break
            output += data
        elif waiting and output[answered:].rstrip().endswith((b"]", b":")):
            answered = len(output)
            os.write(terminal, waiting.pop(0).encode() + b"\n")
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    return output.decode(), os.waitstatus_to_exitcode(status)


def test_password_is_asked_for_twice_and_not_shown(admin_room, api):
    out, status = at_terminal(admin_room, ["account", "add", "anna@example.test"], [PASSWORD, PASSWORD])
    assert status == 0 and "anna@example.test is ready" in out and PASSWORD not in out
    out, status = at_terminal(admin_room, ["account", "password", "anna@example.test"], [PASSWORD, "something else"])
    assert status == 1 and "not the same" in out


@pytest.mark.parametrize(
    ("options", "typed", "status", "left"),
    [([], ["n"], 1, True), ([], ["y"], 0, False), (["--purge"], ["y", "n"], 1, True), (["--purge"], ["y", "yes"], 0, False),
     (["--yes"], [], 0, False)],
)  # fmt: skip
def test_deleting_asks(admin_room, api, options, typed, status, left):
    api.post("/accounts", json={"address": "anna@example.test", "password": PASSWORD})
    out, found = at_terminal(admin_room, ["account", "del", "anna@example.test", *options], typed)
    assert found == status, out
    assert (api.get("/accounts/anna@example.test").status_code == 200) is left


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("5", 5),
        ("5k", 5120),
        ("1MiB", 1 << 20),
        ("1MB", 1 << 20),
        ("2G", 2 << 30),
        ("1.5 m", 3 << 19),
        ("1t", 1 << 40),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "x", "1x", "1e9", "1.2345", "١", "9" * 20, "m"])
def test_wrong_sizes(text):
    with pytest.raises(Usage):
        parse_size(text)


def test_words_for_the_terminal():
    assert plain("a\x1b[2J\x9b\u202eb\n\tc") == "a\ufffd[2J\ufffd\ufffdb\n\tc"
    assert [size_text(size) for size in (None, 0, 1 << 20, 5 << 40)] == ["-", "0 B", "1.0 MiB", "5.0 TiB"]
