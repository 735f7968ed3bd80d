"""PLAIN and LOGIN, the server's side."""

import pytest

from services.protocol.sasl import Login, PasswordCredentials, Plain, SaslError, decode_base64, encode_base64


@pytest.mark.parametrize("response", [b"\0anna\0secret", b"anna\0anna\0secret", b"Anna\0anna\0secret"])
def test_plain(response: bytes) -> None:
    assert Plain().start(response) == PasswordCredentials("anna", "secret")


def test_plain_without_initial_response_asks_with_an_empty_challenge() -> None:
    mechanism = Plain()
    assert mechanism.start(None) == b""
    assert mechanism.respond("\0änna\0pässwörd".encode()) == PasswordCredentials("änna", "pässwörd")


@pytest.mark.parametrize(
    "response",
    [
        b"", b"anna", b"anna\0secret", b"\0anna\0secret\0more", b"\0\0secret", b"\0anna\0", b"\0\xff\0secret",
        b"other\0anna\0secret", b"\0" + b"x" * 1025 + b"\0secret", b"\0anna\0" + b"x" * 1025,
    ],
)  # fmt: skip
def test_malformed_plain(response: bytes) -> None:
    with pytest.raises(SaslError):
        Plain().start(response)


def test_login() -> None:
    mechanism = Login()
    assert mechanism.start(None) == b"Username:"
    assert mechanism.respond(b"anna") == b"Password:"
    assert mechanism.respond(b"secret") == PasswordCredentials("anna", "secret")


def test_login_with_initial_response() -> None:
    mechanism = Login()
    assert mechanism.start(b"anna") == b"Password:"
    assert mechanism.respond(b"secret") == PasswordCredentials("anna", "secret")


@pytest.mark.parametrize("responses", [[b"", b"x"], [b"x", b""], [b"\xff", b"x"], [b"x\0y", b"x"]])
def test_malformed_login(responses: list[bytes]) -> None:
    mechanism = Login()
    mechanism.start(None)
    with pytest.raises(SaslError):
        for response in responses:
            mechanism.respond(response)


def test_a_password_is_not_printed() -> None:
    assert "secret" not in repr(PasswordCredentials("anna", "secret"))


def test_base64() -> None:
    assert decode_base64(encode_base64(b"\0a\xff").encode()) == b"\0a\xff"
    for text in (b"a", b"=", b"YQ", b"YQ==\n", b"Y Q=", b"-_==", "ü".encode()):
        with pytest.raises(SaslError):
            decode_base64(text)
