"""What the updater sees of an inspection: a table of what is shown, digests for everything else."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import SECRET_VALUE, container

from services.docker_filter.redact import Redaction

MINE = Redaction(b"k" * 32)


def test_what_is_shown_is_what_an_update_needs() -> None:
    real = container(1, "imap")
    shown = MINE.inspection(real)
    for key in ("Id", "Name", "State", "Image", "Mounts", "NetworkSettings"):
        assert shown[key] == real[key]
    hidden = ("Env",)
    assert {k: v for k, v in shown["Config"].items() if k not in hidden} == {
        k: v for k, v in real["Config"].items() if k not in hidden
    }
    assert shown["HostConfig"]["Mounts"] == [
        {"Type": "volume", "Source": "mailstead_mail", "Target": "/var/mail", "VolumeOptions": {}}
    ]


def test_values_of_the_environment_are_digests_that_compare() -> None:
    shown = MINE.environment(["A=one", "B=one", "C=two", "D", "E="])
    assert shown
    values = [entry.partition("=")[2] for entry in shown]
    assert values[0] == values[1] != values[2] and shown[3] == "D"
    assert all(value.startswith("sha256:") and len(value) == 23 for value in (*values[:3], values[4]))
    assert Redaction(b"l" * 32).environment(["A=one"]) != shown[:1]
    assert MINE.environment(None) is None


def test_secrets_in_other_places_are_hidden_too() -> None:
    real = container(1, "imap")
    real["HostConfig"]["LogConfig"]["Config"] = {"splunk-token": SECRET_VALUE}
    real["HostConfig"]["Mounts"][0]["VolumeOptions"] = {
        "DriverConfig": {"Name": "local", "Options": {"o": f"username=x,password={SECRET_VALUE}"}}
    }
    real["HostConfig"]["Credential"] = {"spec": [SECRET_VALUE]}
    real["Config"]["Token"] = SECRET_VALUE
    real["Future"] = {"deep": [{"deeper": SECRET_VALUE}]}
    text = json.dumps(MINE.inspection(real))
    assert SECRET_VALUE not in text and "splunk-token" in text and '"Name": "local"' in text


NESTED = st.recursive(
    st.just(SECRET_VALUE) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=3),
)


@given(st.sampled_from(["", "Config", "HostConfig", "GraphDriver"]), st.text("abcdef", min_size=1), NESTED)
def test_a_field_that_is_not_known_is_never_shown(part: str, name: str, value: Any) -> None:
    real = copy.deepcopy(container(1, "imap")) | {"GraphDriver": {}}
    (real[part] if part else real)[name] = value
    real["Config"]["Env"] = []
    assert SECRET_VALUE not in json.dumps(MINE.inspection(real))
