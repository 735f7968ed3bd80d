"""DMARC beside two packages that follow RFC 9989: dmarc (records, dispositions) and checkdmarc (the walk up the tree).

Of checkdmarc only the function that walks is taken from its source; what it asks DNS through is a dictionary here.
"""

import ast
import importlib.metadata
import logging
from types import SimpleNamespace
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from services.message.dkim_verify import DkimResult
from services.policy.dmarc import check
from services.policy.dmarc_record import policy_record
from services.policy.spf import SpfResult
from services.protocol.dns_lookup import answered
from tests.published import member, module

NO_SPF = SpfResult("none", "", "mfrom")

with mock.patch.object(importlib.metadata, "version", lambda name: "1.2.1"):
    DMARC = module("dmarc", "dmarc/__init__.py")


class NotFound(Exception):
    pass


def walker() -> SimpleNamespace:
    """checkdmarc's query_dmarc_record, with `records` to be filled: domain → the record there."""
    wanted = {"query_dmarc_record", "_get_psd_tag_value", "_is_dmarc_record", "DMARC_VERSION_REGEX_STRING",
              "_DMARC_RECORD_REGEX", "_PSD_TAG_REGEX"}  # fmt: skip
    tree = ast.parse(member("checkdmarc", "checkdmarc/dmarc.py"))
    tree.body = [
        node
        for node in tree.body
        if (isinstance(node, ast.FunctionDef) and node.name in wanted)
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in wanted)
        or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        or (isinstance(node, ast.Import) and node.names[0].name in ("re", "dns.resolver", "dns.exception"))
    ]
    records: dict[str, str] = {}

    def query(domain: str, **_: Any) -> str | None:
        if domain not in records:
            raise NotFound(domain)
        return records[domain]

    names: dict[str, Any] = {
        "DEFAULT_DNS_TIMEOUT": 1.0, "DEFAULT_DNS_MAX_RETRIES": 0, "normalize_domain": str.lower,
        "WSP_REGEX": r"[ \t]", "logger": logging.getLogger("checkdmarc"), "_query_dmarc_record": query, "DMARCRecordNotFound": NotFound,
        "DMARCError": NotFound, "query_dns": lambda *_, **__: [], "_dmarc_cname_conflict_warning": lambda *_, **__: None,
    }  # fmt: skip
    exec(compile(tree, "checkdmarc/dmarc.py", "exec"), names)
    return SimpleNamespace(records=records, walk=names["query_dmarc_record"], is_record=names["_is_dmarc_record"])


WALKER = walker()
LABELS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=10).map(".".join)
RECORDS = st.sampled_from(
    ["v=DMARC1; p=none", "v=DMARC1; p=reject; psd=y", "v=DMARC1; p=reject; psd=n", "v=DMARC1; p=none; psd=u"]
)


@settings(max_examples=400, deadline=None)
@given(author=LABELS, records=st.dictionaries(LABELS, RECORDS, max_size=8))
def test_the_record_that_applies_is_checkdmarcs(author: str, records: dict[str, str]) -> None:
    WALKER.records.clear()
    WALKER.records.update(records)
    zone = {(f"_dmarc.{name}", "TXT"): [text.encode()] for name, text in records.items()}
    ours = answered(check(author, NO_SPF, []), zone)
    try:
        theirs = WALKER.walk(author)
    except NotFound:
        assert ours.result == "none", ours
        return
    assert (ours.policy_domain, ours.record) == (theirs["location"], theirs["record"])


@given(
    st.lists(st.sampled_from(["v", "V", "=", " ", "\t", "DMARC1", "dmarc1", ";", "p=none", "2"]), max_size=8).map(
        "".join
    )
)
def test_what_is_a_record_is_one_for_checkdmarc(text: str) -> None:
    assert (policy_record([text.encode()]) is not None) == WALKER.is_record(text)


TAGS = st.lists(
    st.sampled_from(
        [
            "sp=none", "sp=reject", "sp=QUARANTINE", "adkim=s", "adkim=r", "aspf=s", "t=y", "t=n", "pct=10", "x=y",
            "rua=mailto:a@b.test", "adkim=x", "fo=1",
        ]
    ),
    max_size=5,
    unique_by=lambda tag: tag.partition("=")[0],
)  # fmt: skip
IDENTIFIERS = st.lists(
    st.sampled_from(["example.org", "news.example.org", "x.news.example.org", "other.test"]), max_size=3
)


@settings(max_examples=400, deadline=None)
@given(
    author=st.sampled_from(["example.org", "news.example.org"]),
    p=st.sampled_from(["p=none", "p=quarantine", "P=reject"]),
    tags=TAGS,
    signers=IDENTIFIERS,
    sender=IDENTIFIERS,
)
def test_results_and_dispositions_are_those_of_the_package_dmarc(
    author: str, p: str, tags: list[str], signers: list[str], sender: list[str]
) -> None:
    text = "; ".join(["v=DMARC1", p, *tags])
    spf = SpfResult("pass", sender[0], "mfrom") if sender else NO_SPF
    dkim = [DkimResult("pass", signer, "s", counts_for_alignment=True) for signer in signers]
    ours = answered(check(author, spf, dkim), {("_dmarc.example.org", "TXT"): [text.encode()]})

    judge = DMARC.DMARC()
    policy = judge.parse_record(text, author, "example.org" if author != "example.org" else None, strict=False)
    theirs = judge.get_result(
        policy,
        auth_results=DMARC.AuthResults(
            spf=DMARC.SPF(sender[0], DMARC.SPF_PASS) if sender else None,
            dkim=[DMARC.DKIM(signer, DMARC.DKIM_PASS) for signer in signers],
        ),
        allow_policy_test_mode=True,
    )
    assert ours.result == theirs.result.value, text
    if ours.result == "fail":
        assert ours.policy == theirs.disposition.value, text
    record = policy_record([text.encode()])
    assert record is not None
    assert record.strict_dkim == (policy.adkim is DMARC.RECORD_A_STRICT)
    assert record.strict_spf == (policy.aspf is DMARC.RECORD_A_STRICT)
