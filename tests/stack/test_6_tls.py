"""TLS of the containers, with the OpenSSL that they have: every port, and the admin page opened to others."""

import pytest
from stack import Stack, must, sh
from tlsview import assert_good, scan

PORTS = {"smtp": "smtp", "submission": "smtp", "submissions": "", "imap": "imap", "imaps": ""}


@pytest.mark.parametrize("port", PORTS)
def test_sslscan_finds_nothing_to_object_to(stack: Stack, port: str) -> None:
    assert_good(scan(stack.ports[port], PORTS[port]), port)


def curl(*arguments: str) -> str:
    return must(sh("curl", "--silent", "--show-error", "--insecure", "--max-time", "30", *arguments))


def test_the_admin_page_opened_to_others_has_tls_and_knows_its_names(stack: Stack) -> None:
    # An address of this machine that is not loopback: its own, in the network of the page.
    address, port = f"{stack.subnet}.161", stack.ports["admin"]
    stack.write_env("ports", {**stack.host, "ADMIN_BIND": address})
    try:
        page = f"https://{address}:{port}/"
        assert f"Admin page:   {page}" in stack.up().splitlines()
        assert_good(scan(port, "", address), "the admin page")
        status = ("--output", "/dev/null", "--write-out", "%{http_code}")
        assert curl(*status, page + "login") == "200"
        assert curl(*status, "--header", "Host: nas.local", page + "login") == "200"
        assert curl(*status, "--header", "Host: evil.example", page + "login") == "421"
        shown = curl("--include", f"http://{address}:{port}/login")
        assert shown.startswith("HTTP/1.1 307 ") and f"Location: {page}login" in shown
        assert stack.asked("account", "list")["accounts"], "the command line needs no TLS"
    finally:
        stack.write_env("ports", stack.host)
        stack.up()
    assert curl("--output", "/dev/null", "--write-out", "%{http_code}", f"http://127.0.0.1:{port}/login") == "200"
