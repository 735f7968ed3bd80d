"""What a Raspberry Pi is given: every locked package as a wheel for aarch64, every Debian package for arm64.

Resolved here as pip and apt there would; nothing is run.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Debian 13's Python and C library (glibc 2.41 takes all of these).
PYTHON = "313"
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))


def test_every_locked_package_has_a_wheel_for_aarch64(tmp_path: Path) -> None:
    # Published as source only, plain Python, and built by the Dockerfile: all others must be there ready-made.
    from_source = re.findall(r"--no-binary (\S+)", (ROOT / "images/mailstead/Dockerfile").read_text())
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text())
    wanted = [entry for entry in entries if re.match(r"[a-z0-9]", entry)]
    built = [entry for entry in wanted if entry.partition("==")[0] in from_source]
    assert len(built) == len(from_source) and len(wanted) > 20
    (tmp_path / "lock").write_text("\n".join(entry for entry in wanted if entry not in built))
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--require-hashes", "--only-binary=:all:", *platforms, f"--python-version={PYTHON}", "--dest",
         tmp_path / "wheels", "--requirement", tmp_path / "lock"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wheels = sorted(path.name for path in (tmp_path / "wheels").iterdir())
    # Those for another system (colorama) are told apart by their markers and are not fetched.
    assert len(wheels) >= len(wanted) - len(built) - 3, wheels
    assert any(name.startswith("uvloop-") and "aarch64" in name for name in wheels), wheels
    assert not [name for name in wheels if not name.endswith((".whl",)) or "x86_64" in name]


def test_every_debian_package_is_there_for_arm64() -> None:
    named: set[str] = set()
    for path in DOCKERFILES:
        for line in re.findall(r"apt-get install [^&|\n]*", path.read_text().replace("\\\n", " ")):
            named |= {word for word in line.split()[2:] if not word.startswith("-")}
    assert {"python3", "ca-certificates", "unbound"} <= named
    arm = "-o APT::Architecture=arm64 -o APT::Architectures=arm64"
    script = f"apt-get {arm} update -qq && apt-cache {arm} policy {' '.join(sorted(named))}"
    done = subprocess.run(
        ["docker", "run", "--rm", "debian:trixie-slim", "sh", "-c", script],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    offered = {
        name for name, candidate in re.findall(r"^(\S+):\n(?:  .*\n)*?  Candidate: (\S+)", done.stdout, re.MULTILINE)
        if candidate != "(none)"
    }  # fmt: skip
    assert named <= offered, done.stdout
