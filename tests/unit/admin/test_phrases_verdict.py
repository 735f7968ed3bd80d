"""Every reason that a verdict gives is known to the page, said in Chinese, and has advice."""

import itertools

import pytest

from services.admin import text
from services.admin.advice import known
from services.admin.phrases import phrase_of, say
from services.policy import greylist
from services.policy.authenticity import Proofs, Wishes, worth
from services.policy.rates import RateLimits, Rates
from services.policy.verdict import Reason
from tests.unit.policy.test_authenticity import DKIM, DMARC, SPF


@pytest.fixture(autouse=True)
def english_again():
    yield
    text.speak(text.ENGLISH)


def every_reason() -> set[Reason]:
    found = set()
    for spf, dkim, author in itertools.product(SPF, DKIM, DMARC):
        proofs = Proofs(SPF[spf], DKIM[dkim], DMARC[author])
        found.update(worth(proofs, Wishes("reject", "honor")).reasons)
    vouched = "list.test, whose word counts here, says that dmarc passed for far.test there"
    found.update(worth(Proofs(SPF["pass"], (), DMARC["fail reject"], vouched_by=vouched), Wishes()).reasons)
    found.update(worth(Proofs(SPF["pass"], two_froms=True), Wishes()).reasons)
    rates = Rates(RateLimits(1, 1, 1))
    for _ in range(2):
        found.update(each for each in (rates.client("192.0.2.1", 0), rates.sender("a@b.test", "", True, 0)) if each)
    found.update(each for each in [greylist.judge(None, None, 0, greylist.Rules()).reason] if each)
    return found


def test_every_reason_is_known_and_translated():
    text.speak("zh-CN")
    for reason in every_reason():
        assert phrase_of(reason.text), f"add to services/admin/phrases_verdict.py: {reason.text}"
        assert say(reason.text) != reason.text, reason.text
        assert known(reason.rule), f"add to services/admin/advice.py: {reason.rule}"
