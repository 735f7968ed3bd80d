"""What others publish for tests, read from their source distributions: test suites, signed mail, and second opinions.

Pinned by tests/published.lock and fetched by pip, by name, once: `python -m tests.published` (scripts/test does it when
it sets up) or by the first test that asks. Kept as the archive that came, under $XDG_CACHE_HOME or ~/.cache.
"""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path
from types import ModuleType

LOCK = Path(__file__).with_name("published.lock")
_LINE = re.compile(r"^([a-z0-9-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$", re.M)


def archive(name: str) -> Path:
    """The source distribution of `name`, fetched where it is not there yet."""
    version, digest = {found[1]: (found[2], found[3]) for found in _LINE.finditer(LOCK.read_text())}[name]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mailstead-tests"
    path = folder / f"{name}-{version}.tar.gz"
    if not _is(path, digest):
        folder.mkdir(parents=True, exist_ok=True)
        # In a folder of its own, then renamed: two test processes may both find nothing.
        with tempfile.TemporaryDirectory(dir=folder) as fetched:
            requirement = Path(fetched, "requirement")
            requirement.write_text(f"{name}=={version} --hash=sha256:{digest}\n")
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                 "--no-binary", ":all:", "--require-hashes", "--dest", fetched, "-r", str(requirement)],
                check=True, timeout=300,
            )  # fmt: skip
            os.replace(Path(fetched, path.name), path)
    assert _is(path, digest), f"{path} is not what {LOCK.name} says"
    return path


def member(name: str, path: str) -> bytes:
    """One file of a source distribution, `path` without the folder that names the version."""
    with tarfile.open(archive(name)) as opened:
        top = opened.getnames()[0].split("/")[0]
        found = opened.extractfile(f"{top}/{path}")
        assert found is not None, path
        return found.read()


def module(name: str, path: str) -> ModuleType:
    """A module of a source distribution that is one file, imported without installing it."""
    made = ModuleType(Path(path).stem)
    with warnings.catch_warnings(action="ignore"):  # about its age
        exec(compile(member(name, path), path, "exec"), made.__dict__)
    return made


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


if __name__ == "__main__":
    for line in _LINE.finditer(LOCK.read_text()):
        print(archive(line[1]))
