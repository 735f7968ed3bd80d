"""What sslscan (Debian's) finds on a port, and what it must find on each of ours."""

import re
import subprocess
from xml.etree import ElementTree


def scan(port: int, kind: str, host: str = "127.0.0.1") -> ElementTree.Element:
    """What sslscan finds; `kind` is smtp or imap where TLS begins with STARTTLS, else ""."""
    how = [f"--starttls-{kind}"] if kind else []
    done = subprocess.run(
        ["sslscan", "--no-colour", "--xml=-", *how, f"{host}:{port}"], capture_output=True, timeout=120, check=True
    )
    found = ElementTree.fromstring(done.stdout).find("ssltest")
    assert found is not None, done.stdout
    return found


def assert_good(found: ElementTree.Element, name: str = "") -> None:
    """TLS 1.2 and 1.3 alone, suites with forward secrecy and an AEAD alone, nothing that is known to be broken."""
    try:
        _assert_good(found)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}\n{ElementTree.tostring(found).decode()}") from error


def _assert_good(found: ElementTree.Element) -> None:
    enabled = {(each.get("type"), each.get("version")) for each in found.iter("protocol") if each.get("enabled") == "1"}
    assert enabled == {("tls", "1.2"), ("tls", "1.3")}
    suites = {each.get("cipher", "") for each in found.iter("cipher")}
    assert "TLS_AES_128_GCM_SHA256" in suites and any(suite.startswith("ECDHE-") for suite in suites), "it looked"
    bad = [name for name in suites if not re.fullmatch(r"TLS_(AES|CHACHA20)_\w+|ECDHE-\w+-.*(GCM|CHACHA20).*", name)]
    assert not bad
    assert all(int(each.get("bits", "0")) >= 128 for each in found.iter("cipher"))
    (renegotiation,) = found.iter("renegotiation")
    assert renegotiation.get("supported") == "0"
    assert not [each.attrib for each in found.iter("heartbleed") if each.get("vulnerable") != "0"]
    assert not [each.attrib for each in found.iter("compression") if each.get("supported") != "0"]
    assert not [each.attrib for each in found.iter("group") if int(each.get("bits", "0")) < 112]
