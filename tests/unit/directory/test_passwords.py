"""Passwords: right and wrong, the remembered success, the work for unknown names, the bounds."""

from __future__ import annotations

import asyncio

import pytest

from services.directory import passwords
from services.directory.passwords import NOBODY, Busy, Passwords, WeakPassword

# Of "correct horse". A constant: it names tests, and a name must be the same in every process of a run.
HASH = "$argon2id$v=19$m=19456,t=2,p=1$RMXqEvoaz4RlbH0Yug6CFg$g1xyDwQPbjONp49VCsJaihlo+nJWtS+rNXmMtb43Oi8"


@pytest.fixture
def checks(monkeypatch):
    """Every argon2 check that was made, as (octets, hash)."""
    made = []
    real = passwords._verify

    def counting(octets, password_hash):
        made.append((octets, password_hash))
        return real(octets, password_hash)

    monkeypatch.setattr(passwords, "_verify", counting)
    return made


def run(work):
    return asyncio.run(work)


@pytest.mark.parametrize(
    ("password", "stored", "right"),
    [
        ("correct horse", HASH, True),
        ("correct horsf", HASH, False),
        ("", HASH, False),
        ("correct horse", "", False),
        ("correct horse", None, False),
        ("correct horse", "not a hash", False),
        ("correct horse", "$argon2id$v=19$m=19456,t=2,p=1$AAAA$BBBB", False),
        ("x" * 5000, HASH, False),
        ("\ud800", HASH, False),
        ("null\0byte", HASH, False),
    ],
)
def test_verify(password, stored, right):
    assert run(Passwords().verify("anna@family.example", password, stored)) is right


@pytest.mark.parametrize(
    ("one", "other"), [("caf\u00e9 au lait", "cafe\u0301 au lait"), ("a\u3000b 密码 c", "a b 密码 c")]
)
def test_one_password_typed_in_two_ways(one, other):
    assert run(Passwords().verify("a", other, passwords.hash_password(one)))


def test_success_is_remembered_for_five_minutes(checks):
    now = [0.0]
    verifier = Passwords(clock=lambda: now[0])

    async def scenario():
        for _ in range(3):
            assert await verifier.verify("a", "correct horse", HASH)
        assert len(checks) == 1
        now[0] = 299
        assert await verifier.verify("a", "correct horse", HASH)
        assert len(checks) == 1
        now[0] = 301
        assert await verifier.verify("a", "correct horse", HASH)
        assert len(checks) == 2

    run(scenario())


def test_success_is_remembered_for_name_hash_and_password_together(checks):
    verifier = Passwords()
    other = passwords.hash_password("another one")

    async def scenario():
        assert await verifier.verify("a", "correct horse", HASH)
        assert not await verifier.verify("a", "correct horse", other)  # the password was changed
        assert not await verifier.verify("a", "correct hors", HASH)
        assert not await verifier.verify("a", "correct horse", "")  # the account was disabled
        assert await verifier.verify("b", "correct horse", HASH)
        verifier.forget()
        assert await verifier.verify("a", "correct horse", HASH)

    run(scenario())
    assert len(checks) == 6


def test_failures_are_not_remembered(checks):
    async def scenario():
        verifier = Passwords()
        for _ in range(2):
            assert not await verifier.verify("a", "wrong", HASH)

    run(scenario())
    assert len(checks) == 2


def test_unknown_name_costs_a_real_check(monkeypatch):
    asked = []

    class Hasher:
        def verify(self, stored, octets):
            asked.append(stored)
            return True

    monkeypatch.setattr(passwords, "_hasher", Hasher)
    assert run(Passwords().verify("nobody", "x", None)) is False
    assert asked == [NOBODY]


def test_nobodys_hash_has_our_parameters():
    assert not passwords.needs_rehash(NOBODY)


@pytest.mark.parametrize(
    ("stored", "old"),
    [
        (HASH, False),
        ("$argon2id$v=19$m=65536,t=3,p=4$abc$def", True),
        ("$argon2i$v=19$m=19456,t=2,p=1$a$b", True),
        ("", True),
    ],
)
def test_needs_rehash(stored, old):
    assert passwords.needs_rehash(stored) is old


def test_same_log_in_at_once_is_one_check(checks):
    async def scenario():
        verifier = Passwords()
        return await asyncio.gather(*(verifier.verify("a", "correct horse", HASH) for _ in range(5)))

    assert run(scenario()) == [True] * 5
    assert len(checks) == 1


def test_one_waiter_that_goes_away_does_not_stop_the_others():
    async def scenario():
        verifier = Passwords()
        one = asyncio.create_task(verifier.verify("a", "correct horse", HASH))
        other = asyncio.create_task(verifier.verify("a", "correct horse", HASH))
        await asyncio.sleep(0)
        one.cancel()
        return await other

    assert run(scenario()) is True


def test_at_most_two_at_once_and_then_busy(monkeypatch):
    import threading

    running, most, gate = [], [0], threading.Event()

    def slow(octets, stored):
        running.append(1)
        most[0] = max(most[0], len(running))
        gate.wait(5)
        running.pop()
        return False

    monkeypatch.setattr(passwords, "_verify", slow)
    monkeypatch.setattr(passwords, "MOST_WAITING", 10)

    async def scenario():
        verifier = Passwords()
        tasks = [asyncio.create_task(verifier.verify("a", f"guess {n}", HASH)) for n in range(10)]
        await asyncio.sleep(0.02)
        with pytest.raises(Busy):
            await verifier.verify("a", "one more", HASH)
        gate.set()
        await asyncio.gather(*tasks)
        assert not await verifier.verify("a", "one more", HASH)
        verifier.close()

    run(scenario())
    assert most[0] == 2


def test_remembered_successes_are_bounded(monkeypatch):
    monkeypatch.setattr(passwords, "_verify", lambda octets, stored: True)
    monkeypatch.setattr(passwords, "MOST_REMEMBERED", 5)

    async def scenario():
        verifier = Passwords()
        for number in range(20):
            await verifier.verify(f"a{number}", "p", HASH)
        return len(verifier._known)

    assert run(scenario()) <= 5


@pytest.mark.parametrize(
    "weak", ["", "1234567", "x" * 1025, "line\nbreak here", "tab\there it is", "anna@family.example"]
)
def test_weak_passwords(weak):
    with pytest.raises(WeakPassword):
        passwords.check_strength(weak, "anna@family.example")


@pytest.mark.parametrize("fine", ["12345678", "correct horse battery", "密码密码密码密码"])
def test_accepted_passwords(fine):
    passwords.check_strength(fine, "anna@family.example")


def test_checks_leave_no_memory_behind():
    """glibc would keep both threads' 19 MiB blocks for ever (`_give_back_large_blocks`)."""
    import re
    import subprocess
    import sys

    program = (
        "import asyncio, re\n"
        "from services.directory.passwords import Passwords, NOBODY\n"
        "verifier = Passwords()\n"
        "async def guess():\n"
        "    for turn in range(4):\n"
        "        await asyncio.gather(*(verifier.verify('a', f'{turn} {n}', NOBODY) for n in range(4)))\n"
        "asyncio.run(guess())\n"
        "text = open('/proc/self/smaps_rollup').read()\n"
        "print(sum(int(size) for size in re.findall(r'Private_Dirty:\\s+(\\d+)', text)))\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert int(re.search(r"\d+", output.stdout).group()) < 30_000
