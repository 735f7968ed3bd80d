"""The DNS records of the keys, as verifiers and zone files want them."""

import base64

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from services.dkim.records import Record, record
from services.message.dkim_signature import load_key


def pem(private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_ed25519_is_the_bare_key_of_rfc_8463() -> None:
    seed = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    made = record("football.example.com", "brisbane", load_key(pem(ed25519.Ed25519PrivateKey.from_private_bytes(seed))))
    assert made.name == "brisbane._domainkey.football.example.com"
    assert made.value == "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    assert made.presentation == f'"{made.value}"'


def test_rsa_2048_is_split_at_255_octets() -> None:
    private = rsa.generate_private_key(65537, 2048)
    made = record("example.test", "s", load_key(pem(private)))
    assert made.value.startswith("v=DKIM1; k=rsa; p=MIIB")
    assert [len(chunk) for chunk in made.chunks] == [255, len(made.value) - 255]
    assert made.presentation == f'"{made.value[:255]}" "{made.value[255:]}"'
    _, bits, kind, _ = dkim.evaluate_pk("s", made.value.encode())
    assert (bits, kind) == (2048, b"rsa"), "a verifier reads it"


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 510, 511])
def test_chunks_join_to_the_value(length: int) -> None:
    made = Record("n", "x" * length)
    assert "".join(made.chunks) == made.value
    assert all(0 < len(chunk) <= 255 for chunk in made.chunks)
