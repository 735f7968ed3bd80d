"""The tables of `*.cases`: ours gives what stands there, and so does Debian's sieve-test, but where the table says why not."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.policy.sieve.sieve_cases import CASES, Case, Oracle, ours


def case_id(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_what_a_script_does(case: Case) -> None:
    assert ours(case) == case.gives


def test_cases_are_many_and_named_once() -> None:
    assert len(CASES) >= 250
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.gives for case in CASES)
    assert all(bool(case.dovecot) == bool(case.why) for case in CASES), "a difference has its reason"


def test_dovecot_does_the_same(oracle_home: Path) -> None:
    """Debian's package dovecot-sieve, which scripts/test installs."""
    asked = [case for case in CASES if case.dovecot != ["-"]]

    def run(part: int) -> list[tuple[str, list[str], list[str]]]:
        oracle = Oracle(oracle_home / str(part))
        return [(case.name, oracle.run(case), case.dovecot or case.gives) for case in asked[part::4]]

    with ThreadPoolExecutor(4) as pool:
        results = [result for part in pool.map(run, range(4)) for result in part]
    assert len(results) == len(asked)
    wrong = [
        f"{name}: Dovecot gives {found}, the table says {wanted}" for name, found, wanted in results if found != wanted
    ]
    assert not wrong, "\n".join(wrong)
