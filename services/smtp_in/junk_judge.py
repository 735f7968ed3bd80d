"""What the junk filter says of a message that arrives: by its signs for everybody, by its words for each account.

Called by intake after the final dot. `message` reads the message once (its first 256 KiB, without what this hop puts
before it) and gives the rules' reasons, which belong to the message's verdict; `account` adds what the account itself
has sorted (`junk.model`, see `storage/junk_model`) and whom it knows. The score of an account is the verdict's score
plus its weight; junk from JUNK_SCORE on. Neither raises for what a message or a model is like: a filter must not stop
mail.

    judged = judge.message(octets, proven=dmarc.result == "pass")
    verdict.reasons += judged.reasons
    weight, reasons = judge.account("anna@family.example", judged)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from services.message.reading import MOST_OCTETS, Reading, read
from services.message.tokens import VERSION, is_cjk, parted, tokens
from services.policy import junk, junk_rules
from services.policy.verdict import Reason
from services.storage import junk_model
from services.storage.junk_model import JunkModel
from services.storage.personal import JUNK_MODEL, Reader

__all__ = ["MOST_OCTETS", "Judged", "JunkJudge"]

_LONG = 65_536  # octets from which a message is read in a thread


@dataclass(frozen=True, slots=True)
class Words:
    """Tokens of a message, those that are CJK words apart (`written`), and whether it is mostly written in such."""

    tokens: tuple[str, ...]
    written: tuple[str, ...]
    cjk: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """A message as it was read. `proven`: SPF or DKIM passed in alignment with its From, so From is who it says."""

    reading: Reading
    proven: bool
    reasons: tuple[Reason, ...]
    _words: list[Words] = field(default_factory=list, repr=False, compare=False)

    @property
    def words(self) -> Words:
        """Found when first asked for: they are half the work on a message, and only a trained account asks."""
        if not self._words:
            common, written = parted(tokens(self.reading))
            self._words.append(Words(tuple(common), tuple(written), is_cjk(self.reading)))
        return self._words[0]


class JunkJudge:
    """The models of the room's accounts, each looked at anew at most once a second. For one thread."""

    def __init__(self, personal_dir: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, of any beginning."""
        self._models: Reader[JunkModel] = Reader(
            personal_dir, JUNK_MODEL, JunkModel, most=junk_model.MOST_OCTETS, clock=clock
        )

    def message(self, octets: bytes, *, proven: bool) -> Judged:
        """Read `octets`: the message or its first MOST_OCTETS. About a millisecond for 5 KB."""
        reading = read(octets)
        judged = Judged(reading, proven, tuple(junk_rules.reasons(reading)))
        if len(octets) > _LONG:
            _ = judged.words  # the caller reads such a one in a thread
        return judged

    def wrote_to(self, address: str, sender: str) -> bool:
        """Whether the account has written to `sender`, of whom nothing is proven: enough not to let an answer wait."""
        model = self._models.get(address) if sender else None
        return model is not None and model.knows(junk_model.wrote_to(sender.lower()))

    def account(self, address: str, judged: Judged) -> tuple[float, list[Reason]]:
        """Points for this account (below 0 they speak for the message) and why."""
        reasons: list[Reason] = []
        model = self._models.get(address)
        sender = judged.reading.from_address
        known: Reason | None = None
        if model is not None:
            if model.version == VERSION:
                trained = junk.Trained(*model.sorted)
                if trained.enough:
                    words = judged.words
                    found = junk.bayes(
                        model.counts(words.tokens), trained, cjk=words.cjk, written=model.counts(words.written)
                    )
                    reasons += [found] if found is not None else []
            listed = judged.reading.list_id
            known = junk.known_sender(
                wrote_to=bool(sender) and model.knows(junk_model.wrote_to(sender)),
                kept=bool(sender) and model.knows(junk_model.kept(sender)),
                known_list=bool(listed) and model.knows(junk_model.kept_list(listed)),
                proven=judged.proven,
            )
            reasons += [known] if known is not None else []
        if known is None:
            reasons.append(junk.FIRST_TIME)
        return round(sum(reason.weight for reason in reasons), 2), reasons
