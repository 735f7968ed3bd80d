"""What the relay's settings must have for it to be verified at all; a wrong one ends the start with its name."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from certificates import issue

from services.runtime.values import Settings, WrongSetting
from services.smtp.client import Tls
from services.smtp_out.next_hop import LOCAL, RELAY
from services.smtp_out.tls_policy import check_relay, tls_policy


@pytest.mark.parametrize(
    ("destination", "values", "mode", "verify"),
    [
        (LOCAL, {}, Tls.NONE, False),
        ("far.test", {}, Tls.OPPORTUNISTIC, False),
        (RELAY, {}, Tls.STARTTLS, True),
        (RELAY, {"relay_port": 465}, Tls.IMPLICIT, True),
        (RELAY, {"relay_host": "relay.test:465"}, Tls.IMPLICIT, True),
        (RELAY, {"relay_tls": "tls"}, Tls.IMPLICIT, True),
        (RELAY, {"relay_tls": "starttls", "relay_port": 465}, Tls.STARTTLS, True),
        (RELAY, {"relay_tls": "none"}, Tls.NONE, False),
    ],
)
def test_who_is_verified(destination: str, values: dict[str, str], mode: Tls, verify: bool) -> None:
    policy = tls_policy(destination, Settings(**{"relay_host": "relay.test", **values}))  # type: ignore[arg-type]
    assert (policy.mode, policy.verify) == (mode, verify)
    context = policy.context()
    if verify:
        assert context is not None and context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_ca_file_that_serves_is_taken(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(issue("relay.test").chain)
    check_relay(Settings(relay_host="relay.test", relay_ca_file=str(tmp_path / "ca.pem")))


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"no certificate", "no PEM file")])
def test_a_ca_file_that_does_not_is_one_clear_line(tmp_path: Path, content: bytes | None, why: str) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    settings = Settings(relay_host="relay.test", relay_ca_file=str(tmp_path / "ca.pem"))
    with pytest.raises(WrongSetting) as refused:
        check_relay(settings)
    text = str(refused.value)
    assert text.startswith("RELAY_CA_FILE=") and why in text and "\n" not in text


def test_a_relay_that_is_no_host_is_one_clear_line() -> None:
    with pytest.raises(WrongSetting, match=r"RELAY_HOST='relay\.test:99999'"):
        check_relay(Settings(relay_host="relay.test:99999"))
