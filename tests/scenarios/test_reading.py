"""Reading mail: two clients at once, IDLE, real programs, and what a restart must not change."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import mailclients
from house import PASSWORD, House
from mailclients import ImapLine, letter, messages, run, until


def opened(house: House, account: str, mailbox: str = "INBOX") -> ImapLine:
    line = ImapLine(house.port("imaps"))
    line.command(f'LOGIN {account} "{PASSWORD}"')
    line.command(f"SELECT {mailbox}")
    return line


def test_an_idle_client_is_told_within_a_second(at_home: House) -> None:
    ann = at_home.account()
    client = opened(at_home, ann)
    for number in (1, 2, 3):
        with client.idling():
            at_home.receive("friend@outside.test", ann, message=letter("friend@outside.test", ann).message)
            answered = time.monotonic()
            while f"* {number} EXISTS".encode() not in client.line(5):
                pass
            assert time.monotonic() - answered < 1.0
    client.close()


def test_a_second_client_sees_flags_and_expunges(at_home: House) -> None:
    ann = at_home.account()
    sent = letter("friend@outside.test", ann)
    at_home.receive("friend@outside.test", ann, message=sent.message)
    at_home.letter(ann, sent.message_id)
    first, second = opened(at_home, ann), opened(at_home, ann)
    with second.idling():
        first.command("STORE 1 +FLAGS (\\Flagged $Label1)")
        while b"FETCH" not in (line := second.line(5)):
            pass
        assert b"* 1 FETCH" in line and b"\\Flagged" in line and b"$Label1" in line
        first.command("STORE 1 +FLAGS.SILENT (\\Deleted)")
        first.command("EXPUNGE")
        while second.line(5) != b"* 1 EXPUNGE\r\n":
            pass
    first.close()
    second.close()


def test_the_folders_of_a_new_account_are_there_with_their_use(at_home: House) -> None:
    client = opened(at_home, at_home.account())
    listed = b"\n".join(client.command('LIST "" "*"'))
    for name in ("Drafts", "Sent", "Junk", "Trash", "Archive"):
        assert f"\\{name}".encode() in listed and f" {name}".encode() in listed.replace(b'"', b""), listed
    client.close()


def test_curl_reads_the_exact_bytes(at_home: House) -> None:
    ann = at_home.account()
    sent = letter("friend@outside.test", ann, body=b"one\r\n\xc3\xa9\r\n")
    at_home.receive("friend@outside.test", ann, message=sent.message)
    whole = at_home.letter(ann, sent.message_id)
    done = run("curl", "-sS", "-k", f"imaps://{ann.replace('@', '%40')}:{PASSWORD.replace(' ', '%20')}"
               f"@127.0.0.1:{at_home.port('imaps')}/INBOX;MAILINDEX=1")  # fmt: skip
    assert done.status == 0 and done.output.encode() == whole, done.output


def test_starttls_on_143_and_no_log_in_before_it(at_home: House) -> None:
    ann = at_home.account()
    client = ImapLine(at_home.port("imap"), tls=False)
    assert b"LOGINDISABLED" in b"".join(client.command("CAPABILITY"))
    assert b" NO" in client.attempt(f'LOGIN {ann} "{PASSWORD}"')[-1]
    client.command("STARTTLS")
    client.socket = mailclients.trusting().wrap_socket(client.socket)
    client._file = client.socket.makefile("rb")
    assert b"LOGINDISABLED" not in b"".join(client.command("CAPABILITY"))
    client.command(f'LOGIN {ann} "{PASSWORD}"')
    client.close()


def test_mbsync_keeps_both_sides_alike(at_home: House, tmp_path: Path) -> None:
    ann = at_home.account()
    sent = [letter("friend@outside.test", ann, body=f"number {number}\r\n".encode()) for number in range(5)]
    for each in sent:
        at_home.receive("friend@outside.test", ann, message=each.message)
    for each in sent:
        at_home.letter(ann, each.message_id)
    first = mailclients.mbsync(tmp_path, at_home.port("imaps"), ann, PASSWORD)
    assert first.status == 0, first.output
    inbox = tmp_path / "mail" / "INBOX"
    files = [*(inbox / "new").iterdir(), *(inbox / "cur").iterdir()]
    assert len(files) == 5 and {"Sent", "Drafts", "Trash"} <= {each.name for each in (tmp_path / "mail").iterdir()}
    # Read one and delete another on this side, and write one in Drafts: the server must follow.
    read, deleted = files[0], files[1]
    read.rename(inbox / "cur" / (read.name.split(":")[0] + ":2,S"))
    deleted.rename(inbox / "cur" / (deleted.name.split(":")[0] + ":2,ST"))
    draft = letter(ann, "friend@outside.test", subject="a draft")
    (tmp_path / "mail" / "Drafts" / "cur" / "1.draft.host:2,DS").write_bytes(draft.message.replace(b"\r\n", b"\n"))
    second = mailclients.mbsync(tmp_path, at_home.port("imaps"), ann, PASSWORD)
    assert second.status == 0, second.output
    with at_home.imap(ann) as client:
        assert len(messages(client)) == 4
        assert client.uid("SEARCH", "SEEN")[1][0].split().__len__() == 1
        assert any(draft.message_id.encode() in each for each in messages(client, "Drafts").values())


def test_a_restart_keeps_uids_flags_and_folders(new_house: Callable[..., House]) -> None:
    house = new_house()
    ann = house.account()
    for number in range(4):
        sent = letter("friend@outside.test", ann, subject=str(number))
        house.receive("friend@outside.test", ann, message=sent.message)
        house.letter(ann, sent.message_id)
    client = opened(house, ann)
    client.command("CREATE Holidays")
    client.command("UID STORE 2 +FLAGS (\\Seen Important)")
    client.command("UID MOVE 3 Holidays")

    def picture(line: ImapLine) -> list[bytes]:
        inbox = line.command("SELECT INBOX")
        validity = [each for each in inbox if b"UIDVALIDITY" in each or b"UIDNEXT" in each]
        return (
            validity
            + line.command("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)")[:-1]
            + [each for each in line.command("STATUS Holidays (MESSAGES UIDNEXT UIDVALIDITY)") if b"STATUS" in each[:9]]
        )

    before = picture(client)
    client.close()
    house.restart()
    client = opened(house, ann)
    assert picture(client) == before
    client.close()


def test_a_message_arriving_while_it_is_selected_shows_at_the_next_command(at_home: House) -> None:
    ann = at_home.account()
    client = opened(at_home, ann)
    at_home.receive("friend@outside.test", ann, message=letter("friend@outside.test", ann).message)
    until(lambda: b"* 1 EXISTS" in client.command("NOOP"), seconds=5)
    client.close()


def test_an_expunged_uid_never_comes_back(at_home: House) -> None:
    ann = at_home.account()
    client = opened(at_home, ann)
    uids = []
    for _ in range(3):
        sent = letter("friend@outside.test", ann)
        at_home.receive("friend@outside.test", ann, message=sent.message)
        at_home.letter(ann, sent.message_id)
        client.command("NOOP")
        found = client.command("UID SEARCH ALL")
        uids.append(next(each for each in found if each.startswith(b"* SEARCH")).split()[-1])
        client.command("STORE 1:* +FLAGS.SILENT (\\Deleted)")
        client.command("EXPUNGE")
    assert uids == [b"1", b"2", b"3"]
    client.close()


def test_an_open_idle_does_not_hold_up_the_end(new_house: Callable[..., House]) -> None:
    house = new_house()
    client = opened(house, house.account())
    client.socket.sendall(b"x IDLE\r\n")
    assert client.line().startswith(b"+")
    stopping = threading.Thread(target=house.stop)
    stopping.start()
    assert b"BYE" in client.line(10)
    client.close()
    stopping.join(15)
    assert not stopping.is_alive()
