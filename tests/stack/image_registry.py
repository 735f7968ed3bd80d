"""A registry for the updater's tests: Debian's docker-registry behind a door in this process that can do harm.

The engine takes a registry on loopback without TLS. The door passes everything on, or refuses (401, 429), cuts a layer
short, or is closed: what a registry of the world does on a bad day. New images are made in the registry, never by the
engine: one more layer on an image that was pushed, so that the engine must fetch it.
"""

import contextlib
import datetime
import gzip
import hashlib
import http.client
import io
import json
import secrets
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mailclients import until
from stack import must, sh

FOLDER = Path(__file__).parent / "registry"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIG = "application/vnd.docker.container.image.v1+json"
CUT = 3000  # bytes of a layer that come when it is cut short


def registry_image() -> str:
    """Its image, built unless one with exactly these contents is there; its name carries their hash."""
    total = hashlib.sha256()
    for path in sorted(FOLDER.iterdir()):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    image = f"mailstead-registry:{total.hexdigest()[:16]}"
    if sh("docker", "image", "inspect", image).status != 0:
        must(sh("docker", "build", "--quiet", "--tag", image, str(FOLDER), seconds=600))
    return image


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """One registry; `harm` is what its door does: "", "closed", "401", "429" or "cut"."""

    def __init__(self, name: str) -> None:
        self.name, self.harm = name, ""
        self._behind = 0
        self._door = self._make_door()
        self.port: int = self._door.server_address[1]

    @property
    def address(self) -> str:
        """As MAILSTEAD_REGISTRY has it."""
        return f"127.0.0.1:{self.port}/mailstead"

    def start(self) -> None:
        must(sh("docker", "run", "--detach", "--name", self.name, "--publish", "127.0.0.1::5000", registry_image()))
        self._behind = int(must(sh("docker", "port", self.name, "5000")).strip().rpartition(":")[2])
        threading.Thread(target=self._door.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        until(lambda: self._answers(), 20)

    def stop(self) -> None:
        self._door.shutdown()
        self._door.server_close()
        sh("docker", "rm", "--force", "--volumes", self.name)

    # --- images -----------------------------------------------------------------------------------------------------
    def extended(self, repository: str, tag: str, files: dict[str, bytes | None]) -> tuple[str, str]:
        """Move `tag` to the same image with one more layer: `files` are written, those that are None removed.

        Image id and digest of the new one. A random file makes every call's another image.
        """
        manifest = json.loads(self._ask("GET", f"{repository}/manifests/{tag}", headers={"Accept": MANIFEST})[1])
        config = json.loads(self._ask("GET", f"{repository}/blobs/{manifest['config']['digest']}")[1])
        plain = layer({**files, "etc/mailstead-test": secrets.token_bytes(200_000)})
        packed = gzip.compress(plain, 1)
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        config["rootfs"]["diff_ids"].append(digest_of(plain))
        config["history"].append({"created": now, "created_by": "tests"})
        config["created"] = now
        written = json.dumps(config).encode()
        for blob in (packed, written):
            self._upload(repository, blob)
        manifest["layers"].append({"mediaType": LAYER, "size": len(packed), "digest": digest_of(packed)})
        manifest["config"] = {"mediaType": CONFIG, "size": len(written), "digest": digest_of(written)}
        return digest_of(written), self.move(repository, tag, json.dumps(manifest).encode())

    def manifest(self, repository: str, tag: str) -> bytes:
        """What a tag means now, to give it back with `move`."""
        return self._ask("GET", f"{repository}/manifests/{tag}", headers={"Accept": MANIFEST})[1]

    def move(self, repository: str, tag: str, manifest: bytes) -> str:
        """Let a tag mean a manifest; its digest."""
        self._ask("PUT", f"{repository}/manifests/{tag}", manifest, {"Content-Type": MANIFEST})
        return digest_of(manifest)

    def _upload(self, repository: str, blob: bytes) -> None:
        place = self._ask("POST", f"{repository}/blobs/uploads/")[0]["Location"]
        path = place.partition("/v2/")[2] + f"&digest={digest_of(blob)}"
        self._ask("PUT", path, blob, {"Content-Type": "application/octet-stream"})

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[dict[str, str], bytes]:
        line = http.client.HTTPConnection("127.0.0.1", self._behind, timeout=30)
        line.request(method, f"/v2/{path}", body, headers or {})
        answer = line.getresponse()
        content = answer.read()
        line.close()
        assert answer.status < 300, (method, path, answer.status, content)
        return dict(answer.getheaders()), content

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, AssertionError):
            return self._ask("GET", "") is not None
        return False

    # --- the door -----------------------------------------------------------------------------------------------------
    def _make_door(self) -> ThreadingHTTPServer:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def pass_on(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                if self.headers.get("Transfer-Encoding", "") == "chunked":
                    body = b"".join(self._chunks())
                else:
                    body = self.rfile.read(length)
                if registry.harm == "closed":
                    self.close_connection = True
                    return
                if registry.harm in ("401", "429"):
                    code = {"401": "UNAUTHORIZED", "429": "TOOMANYREQUESTS"}[registry.harm]
                    said = {"errors": [{"code": code, "message": f"{code.lower()} by the test", "detail": None}]}
                    self._send(int(registry.harm), {"Content-Type": "application/json"}, json.dumps(said).encode())
                    return
                line = http.client.HTTPConnection("127.0.0.1", registry._behind, timeout=60)
                line.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                line.putheader("Host", f"127.0.0.1:{registry.port}")
                line.putheader("Content-Length", str(len(body)))
                for name, value in self.headers.items():  # Accept comes several times
                    if name not in ("Host", "Transfer-Encoding", "Content-Length"):
                        line.putheader(name, value)
                line.endheaders(body)
                answer = line.getresponse()
                content = answer.read()
                names = {
                    name: value for name, value in answer.getheaders() if name not in ("Transfer-Encoding", "Date")
                }
                line.close()
                if registry.harm == "cut" and self.command == "GET" and "/blobs/" in self.path and len(content) > CUT:
                    content = content[:CUT]  # the length that was promised stays
                    self.close_connection = True
                self._send(answer.status, names, content)

            def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                headers.setdefault("Content-Length", str(len(content)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def _chunks(self) -> Iterator[bytes]:
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    yield self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = pass_on

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        return server


def layer(files: dict[str, bytes | None]) -> bytes:
    """A layer's tar: files of root's, or whiteouts."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            folder, _, last = name.rpartition("/")
            entry = tarfile.TarInfo(name if content is not None else f"{folder}/.wh.{last}")
            entry.size, entry.mode = len(content or b""), 0o755
            tar.addfile(entry, io.BytesIO(content or b""))
    return packed.getvalue()


def patched_module(path: str, change: Any) -> dict[str, bytes | None]:
    """A module of services/ as `change` (text to text) makes it, without the compiled one that Python would prefer."""
    source = Path(__file__).parents[2] / "services" / path
    changed = change(source.read_text())
    assert changed != source.read_text()
    there = f"usr/local/lib/python3.13/dist-packages/services/{path}"
    folder, _, name = there.rpartition("/")
    return {there: changed.encode(), f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-313.pyc": None}
