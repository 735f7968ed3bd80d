"""What an attacker who holds the updater can do: ask docker-filter anything, with the right secret, octet by octet."""

import json

from stack import Stack, must

# Runs inside the updater: raw octets on stdin, the answer's octets on stdout; {secret} becomes the pair's secret.
ASK = """
import socket, sys
secret = open('/run/mailstead/secrets/docker-filter+updater', 'rb').read().strip()
line = socket.create_connection(('docker-filter', 2375), 5)
line.settimeout(60)
line.sendall(sys.stdin.buffer.read().replace(b'{secret}', secret))
try:
    while chunk := line.recv(65536):
        sys.stdout.buffer.write(chunk)
except TimeoutError:
    pass
"""
HEAD = "Host: docker\r\nConnection: close\r\n"
SECRET = "Authorization: Bearer {secret}\r\n"


def ask(stack: Stack, request: str) -> str:
    """The answer's octets to the request's."""
    return must(stack.execute("updater", "python3", "-I", "-S", "-c", ASK, stdin=request.encode("latin-1")))


def send(stack: Stack, method: str, target: str, body: object = None) -> tuple[int, str]:
    """Status and body of one request."""
    content = "" if body is None else json.dumps(body)
    length = f"Content-Length: {len(content)}\r\n" if content else ""
    answer = ask(stack, f"{method} {target} HTTP/1.1\r\n{HEAD}{SECRET}{length}\r\n{content}")
    head, _, rest = answer.partition("\r\n\r\n")
    return int(head.split(" ", 2)[1]), rest
