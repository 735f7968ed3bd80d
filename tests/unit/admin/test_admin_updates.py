"""Updates as the API and the command line show them: what the updater says, in whatever shape, and its refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.admin import cli
from services.admin.peers import PeerSaid
from tests.unit.admin.admin_room import AdminRoom

REPORT: dict[str, Any] = {
    "mode": "watch", "checked": 1_700_000_000.0, "next": 1_700_003_600.0, "error": "",
    "run": {"id": "u9", "state": "running", "step": "pull", "since": 1_700_000_100.0,
            "steps": [{"step": "check", "at": 1_700_000_050.0, "outcome": "done", "reason": "imap"}]},
    "images": [{"service": "imap", "image": "x/mailstead:1", "running": "sha256:a", "registry": "sha256:b",
                "state": "newer", "error": ""}],
    "containers": [{"service": "imap", "state": "running", "health": "healthy", "started": "Up 3 hours"}],
}  # fmt: skip
HISTORY = {
    "updates": [
        {"id": "u1", "started": 5.0, "ended": 9.0, "outcome": "rolled-back", "services": ["imap"],
         "reason": "the mail gate: read: no letter", "seconds_closed": 4.25,
         "steps": [{"step": "gate", "at": 8.0, "outcome": "failed", "reason": "no letter"}]},
        {"id": "u2", "started": 50.0, "ended": 60.0, "outcome": "committed", "services": ["imap", "dkim"], "reason": "",
         "seconds_closed": 0.0, "steps": []},
    ]
}  # fmt: skip
PLAN = {"plan": [{"service": "imap", "image": "x/mailstead:1", "from": "sha256:" + "a" * 64, "to": "sha256:" + "b" * 64,
                  "action": "replace", "reason": "newer"}]}  # fmt: skip


@pytest.fixture(autouse=True)
def answers(admin_room: AdminRoom) -> Iterator[None]:
    admin_room.peers.answers |= {
        ("updater", "GET", "/v1/report"): REPORT,
        ("updater", "GET", "/v1/history"): HISTORY,
        ("updater", "POST", "/v1/run"): {"id": "u10"},
        ("updater", "POST", "/v1/rollback"): {"id": "u11"},
    }
    yield
    admin_room.peers.reset()


def said(capsys: pytest.CaptureFixture[str], admin_room: AdminRoom, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `mailstead ARGUMENTS`."""
    status = cli.main(["--data", str(admin_room.folder), *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_status_and_history(api: httpx.Client, admin_room: AdminRoom) -> None:
    status = api.get("/update/status").json()
    assert status == {**REPORT, "held": ""}
    updates = api.get("/update/history").json()["updates"]
    assert [each["id"] for each in updates] == ["u2", "u1"], "the newest first"
    assert updates[1] == HISTORY["updates"][0]


@pytest.mark.parametrize("answer", [None, [], {"run": 5, "images": {}, "checked": "x", "mode": 1}, {"images": [3, {}]}])
def test_an_odd_answer_is_shown_as_far_as_it_goes(api: httpx.Client, admin_room: AdminRoom, answer: Any) -> None:
    for path in ("/v1/report", "/v1/history"):
        admin_room.peers.answers["updater", "GET", path] = answer
    admin_room.peers.answers["updater", "POST", "/v1/run"] = answer
    for path in ("/update/status", "/update/history"):
        assert api.get(path).status_code == 200
    assert api.post("/update/run", json={}).status_code == 202
    assert api.post("/update/run", json={"dry": True}).json()["plan"] == []


def test_a_run_passes_on_what_was_asked_and_is_recorded(api: httpx.Client, admin_room: AdminRoom) -> None:
    answer = api.post("/update/run", json={"local": True, "services": ["imap"]})
    assert (answer.status_code, answer.json()) == (202, {"id": "u10", "plan": []})
    asked = [each[3] for each in admin_room.peers.asked if each[2] == "/v1/run"]
    assert asked == [{"dry": False, "local": True, "services": ["imap"]}]
    assert api.post("/update/rollback").json()["id"] == "u11"
    assert api.post("/update/check").status_code == 202
    reasons = [each["reason"] for each in admin_room.recorded() if each["kind"] == "admin-change"]
    assert {"began the update u10", "asked for a look at the registries"} <= set(reasons)
    admin_room.peers.answers["updater", "POST", "/v1/run"] = PLAN
    dry = api.post("/update/run", json={"dry": True})
    assert dry.status_code == 200 and dry.json()["plan"][0]["wanted"].startswith("sha256:bbb")


@pytest.mark.parametrize(
    "body", [{"dry": 5}, {"services": ["../x"]}, {"other": 1}, {"services": "imap"}, {"services": []}]
)
def test_what_is_no_run(api: httpx.Client, body: dict[str, Any]) -> None:
    assert api.post("/update/run", json=body).status_code == 422


def test_refusals_are_passed_on(api: httpx.Client, admin_room: AdminRoom) -> None:
    admin_room.peers.answers["updater", "POST", "/v1/run"] = PeerSaid(409, "updater: an update is under way (u9)")
    answer = api.post("/update/run", json={})
    assert (answer.status_code, answer.json()["error"]) == (409, "updater: an update is under way (u9)")
    admin_room.peers.away.add("updater")
    assert api.get("/update/status").status_code == 503


def test_only_administrators(admin_room: AdminRoom) -> None:
    with admin_room.client(auth=None, base_url=admin_room.url + "/api/v1") as client:
        for method, path in (("GET", "status"), ("GET", "history"), ("POST", "check"), ("POST", "run"),
                             ("POST", "rollback"), ("POST", "gate")):  # fmt: skip
            assert client.request(method, f"/update/{path}", json={}).status_code == 401, path


def test_they_are_described(api: httpx.Client) -> None:
    described = api.get("/openapi.json").json()
    assert {path for path in described["paths"] if "/update/" in path} == {
        f"/api/v1/update/{each}" for each in ("status", "check", "run", "rollback", "history", "gate")
    }
    assert {"UpdateStatus", "UpdateEntry", "PlannedStep", "GateReport"} <= set(described["components"]["schemas"])


# --- the command line


def test_what_the_command_line_says(capsys: pytest.CaptureFixture[str], admin_room: AdminRoom) -> None:
    status, out, _ = said(capsys, admin_room, "update", "status")
    assert status == 0 and "the update u9 is under way: pull" in out and "imap          newer" in out
    status, out, _ = said(capsys, admin_room, "update", "history", "--steps")
    assert status == 0 and "u1  went back, mail waited 4.2 s  imap" in out and "no letter" in out
    assert out.index("u2") < out.index("u1")
    status, out, _ = said(capsys, admin_room, "update", "history", "--limit", "1")
    assert "u2" in out and "u1" not in out
    status, out, _ = said(capsys, admin_room, "update", "run", "imap")
    assert status == 0 and "u10 has begun" in out
    assert admin_room.peers.asked[-1][3]["services"] == ["imap"]
    status, out, _ = said(capsys, admin_room, "update", "rollback")
    assert status == 0 and "u11" in out
    assert said(capsys, admin_room, "update", "check")[0] == 0
    admin_room.peers.answers["updater", "POST", "/v1/run"] = PLAN
    status, out, _ = said(capsys, admin_room, "update", "run", "--dry-run")
    assert status == 0 and "imap" in out and "sha256:aaaaaaaaaaaa " in out
    admin_room.peers.answers["updater", "POST", "/v1/run"] = {"plan": []}
    assert said(capsys, admin_room, "update", "run", "--dry-run")[1] == "nothing would be done\n"


def test_a_refusal_is_one_line(capsys: pytest.CaptureFixture[str], admin_room: AdminRoom) -> None:
    admin_room.peers.answers["updater", "POST", "/v1/rollback"] = PeerSaid(
        409, "updater: there is no update to take back"
    )
    assert said(capsys, admin_room, "update", "rollback") == (
        1, "", "mailstead: updater: there is no update to take back\n",
    )  # fmt: skip


def test_a_gate_that_does_not_pass_is_exit_1_with_the_step(
    capsys: pytest.CaptureFixture[str], admin_room: AdminRoom
) -> None:
    admin_room.peers.away.add("smtp-in")
    from services.admin import mail_gate

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mail_gate, "STEP_SECONDS", 0.1)
        status, out, _ = said(capsys, admin_room, "gate")
    assert status == 1 and out.startswith("mail does not flow\n") and "not there: smtp-in" in out


@pytest.mark.parametrize(
    "arguments", [("update",), ("update", "run", "--nonsense"), ("update", "history", "--limit", "0")]
)
def test_wrong_commands(arguments: tuple[str, ...], admin_room: AdminRoom) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--data", str(admin_room.folder), *arguments])
    assert ended.value.code == 2
