"""The environment becomes values, or one line that says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from services.runtime import settings
from services.runtime.values import WrongSetting, described


def test_defaults_need_no_environment() -> None:
    values = settings.read({})
    assert (values.hostname, values.administrator) == ("mail.example.test", "admin@example.test")


def test_values_are_typed_and_empty_means_unset() -> None:
    values = settings.read({"RELAY_PORT": "2525", "RELAY_HOST": "  relay.example  ", "MAIL_HOSTNAME": ""})
    assert (values.relay_port, values.relay_host, values.hostname) == (2525, "relay.example", "mail.example.test")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("RELAY_PORT", "0", "a whole number from 1 to 65535"),
        ("RELAY_PORT", "65536", "a whole number from 1 to 65535"),
        ("RELAY_PORT", "smtp", "a whole number from 1 to 65535"),
        ("SSL_TYPE", "acme.sh", "one of self-signed, letsencrypt, manual"),
        ("MAIL_DOMAIN", "localhost", "a domain name such as example.org"),
        ("MAIL_DOMAIN", "a..b", "a domain name such as example.org"),
        ("MAIL_DOMAIN", "exa mple.org", "a domain name such as example.org"),
        ("ADMIN_ADDRESS", "admin", "an address such as admin@example.org"),
        ("RESOLVER", "unbound", "host:port"),
        ("SINGLE_PROCESS", "perhaps", "true or false"),
        ("RELAY_HOST", "smtp://relay.test", "host, host:port or [host]:port"),
        ("RELAY_HOST", "relay.test:smtp", "host, host:port or [host]:port"),
        ("RELAY_HOST", "us@relay.test", "host, host:port or [host]:port"),
        ("RELAY_HOST", "[relay.test", "host, host:port or [host]:port"),
    ],
)
def test_wrong_value_is_one_line_with_variable_value_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(WrongSetting) as caught:
        settings.read({name: value})
    text = str(caught.value)
    assert text.startswith(f"{name}={value!r}")
    assert text.endswith(allowed)
    assert "\n" not in text


@pytest.mark.parametrize(
    "host",
    [
        "relay.test",
        "relay.test:465",
        "[relay.test]:465",
        "[relay.test]",
        "192.0.2.1",
        "[2001:db8::1]:25",
        "::1",
        "relay",
    ],
)
def test_a_relay_is_written_in_any_of_the_usual_ways(host: str) -> None:
    assert settings.read({"RELAY_HOST": host}).relay_host == host


def test_unknown_variables_are_named_with_the_nearest_known_one() -> None:
    lines = settings.unknown(["RELAY_HSOT", "PATH", "HOME", "RELAY_HOST", "SMTP_PORT", "https_proxy", "ZZZZ"])
    assert lines == [
        "unknown variable RELAY_HSOT is ignored: did you mean RELAY_HOST?",
        "unknown variable ZZZZ is ignored",
    ]


def test_env_files_have_dockers_form(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "relay.env").write_text("# RELAY_HOST=no\nRELAY_PASSWORD=a=b # c\n\nRELAY_USR=x\n")
    values, lines = settings.from_files(str(tmp_path))
    assert values["RELAY_PASSWORD"] == "a=b # c"
    assert lines == ["unknown variable RELAY_USR is ignored: did you mean RELAY_USER?"]


def test_every_setting_has_a_reason() -> None:
    assert all(setting.why for setting in described().values())


def test_a_room_ends_with_one_line_and_a_configuration_status() -> None:
    code = "from services.runtime.process import start; start('smtp-in', 'nowhere:serve')"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "MAX_MESSAGE_SIZE": "much"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 78
    assert ended.stderr.splitlines() == [
        "smtp-in: cannot start: MAX_MESSAGE_SIZE='much' (env/mailstead.env) is not allowed: "
        "a whole number from 65536 to 1073741824"
    ]
