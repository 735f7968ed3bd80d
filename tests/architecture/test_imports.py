"""Holds the import rules of services/README.md by reading every module's syntax tree.

Each package may import only from the floors below it, a room never from another room; a third-party package is used
in its home alone; the pure packages (protocol, message, policy) touch no event loop, socket, file or clock; and the
environment is read in one module. Nothing is imported here, so an import inside a function counts like any other.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "services"
MODULES = sorted(SERVICES.rglob("*.py"))

# setup and backup are one-shot containers: rooms that end.
ROOMS = ("smtp_in", "smtp_out", "imap", "dkim", "acme", "admin", "updater", "docker_filter", "setup", "backup")
FLOORS: dict[str, set[str]] = {
    "protocol": set(),
    "directory": {"protocol"},
    "runtime": {"protocol"},
    "message": {"protocol"},
    "policy": {"protocol", "message"},
    "storage": {"protocol", "message"},
    "smtp": {"protocol", "runtime"},
    **{room: {"protocol", "directory", "runtime", "message", "policy", "storage", "smtp"} for room in ROOMS},
}
PURE = ("protocol", "message", "policy")
# Whatever waits, talks, reads the disk or asks for the time. A pure module gets these as values or callables.
IMPURE = {
    "asyncio", "concurrent", "contextvars", "ctypes", "fcntl", "glob", "http", "imaplib", "io", "mmap",
    "multiprocessing", "os", "pathlib", "queue", "random", "select", "selectors", "shutil", "signal", "smtplib",
    "socket", "socketserver", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip
# Third-party package (its import name) to the packages or modules of services/ that may use it.
HOMES: dict[str, tuple[str, ...]] = {
    "aiosmtpd": ("smtp/engine.py", "smtp/session.py"),
    "apscheduler": ("updater",),
    "argon2": ("directory/passwords.py",),
    "cryptography": ("acme", "dkim", "message/dkim_record.py", "message/dkim_signature.py"),
    "dkim": ("message/dkim_signature.py",),
    "dns": ("runtime/dns_wire.py",),
    "docker": ("updater/docker_host.py",),
    "fastapi": ("admin",),
    "idna": ("protocol/idn.py",),
    "h11": ("runtime/internal_http.py", "docker_filter"),
    "jinja2": ("admin",),
    "markupsafe": ("admin",),
    "pydantic": ("admin", "runtime/settings.py"),
    "pydantic_settings": ("runtime/settings.py",),
    "starlette": ("admin",),
    "uvicorn": ("admin",),
    "uvloop": ("runtime/process.py",),
}
# Where the name on PyPI is another.
DISTRIBUTIONS = {
    "argon2": "argon2-cffi",
    "markupsafe": "jinja2",
    "dkim": "dkimpy",
    "dns": "dnspython",
    "starlette": "fastapi",
    "pydantic": "fastapi",
}
SQLITE_HOMES = ("storage", "directory", "admin/event_index.py")
ENVIRONMENT_HOME = "runtime/settings.py"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, by its absolute dotted name, and the line that imports it."""

    name: str
    line: int


def relative(module: Path) -> str:
    return module.relative_to(SERVICES).as_posix()


def package_of(module: Path) -> str:
    """The package of services/ that a module belongs to; "" for services' own modules (`__main__`)."""
    parts = module.relative_to(SERVICES).parts
    return parts[0] if len(parts) > 1 else ""


def imports(module: Path) -> Iterator[Import]:
    """Every import in a module, at any depth, relative ones resolved."""
    here = ("services", *module.relative_to(SERVICES).parts[:-1])
    for node in ast.walk(ast.parse(module.read_bytes(), str(module))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            # `from services.storage import maildir` imports services.storage.maildir.
            for alias in node.names:
                yield Import(f"{source}.{alias.name}" if source in ("services", "importlib") else source, node.lineno)


def at_home(module: Path, homes: tuple[str, ...]) -> bool:
    name = relative(module)
    return any(name == home or name.startswith(home + "/") for home in homes)


def module_id(module: Path) -> str:
    return relative(module)


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_a_package_imports_only_from_the_floors_below(module: Path) -> None:
    package = package_of(module)
    if not package:
        return  # services/__main__.py runs all rooms: it is above every floor
    assert package in FLOORS, f"services/{package} has no floor: add it to FLOORS and to services/README.md"
    allowed = FLOORS[package] | {package}
    wrong = [
        f"{relative(module)}:{found.line} imports {found.name}"
        for found in imports(module)
        if found.name.startswith("services.") and found.name.split(".")[1] not in allowed
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_third_party_packages_stay_at_home(module: Path) -> None:
    wrong = []
    for found in imports(module):
        top = found.name.split(".")[0]
        if top == "sqlite3":
            homes: tuple[str, ...] = SQLITE_HOMES
        elif top in sys.stdlib_module_names or top == "services":
            continue
        else:
            homes = HOMES.get(top, ())
        if not at_home(module, homes):
            wrong.append(f"{relative(module)}:{found.line} imports {found.name}, which is for {homes or 'nobody'}")
    assert not wrong, wrong


@pytest.mark.parametrize("module", [m for m in MODULES if package_of(m) in PURE], ids=module_id)
def test_pure_packages_take_values_only(module: Path) -> None:
    wrong = [f"{relative(module)}:{f.line} imports {f.name}" for f in imports(module) if f.name.split(".")[0] in IMPURE]
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            wrong.append(f"{relative(module)}:{node.lineno} opens a file")
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            wrong.append(f"{relative(module)}:{node.lineno} is asynchronous")
    assert not wrong, wrong


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_the_environment_is_read_in_one_module(module: Path) -> None:
    if relative(module) == ENVIRONMENT_HOME:
        return
    wrong = []
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb"):
            wrong.append(f"{relative(module)}:{node.lineno} reads os.{node.attr}")
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names} & {"environ", "environb", "getenv", "getenvb"}
            wrong += [f"{relative(module)}:{node.lineno} imports os.{name}" for name in names]
    assert not wrong, wrong


def test_what_is_imported_is_declared() -> None:
    """A package that only comes along with another one disappears with it."""
    declared = " ".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]).lower()
    for package in HOMES:
        assert re.search(rf"\b{DISTRIBUTIONS.get(package, package.replace('_', '-'))}\b", declared), package


def test_every_home_still_exists_and_is_used() -> None:
    """A line of HOMES that nothing needs any more would let the package come back unseen."""
    used = {(found.name.split(".")[0], relative(module)) for module in MODULES for found in imports(module)}
    for package, homes in {**HOMES, "sqlite3": SQLITE_HOMES}.items():
        for home in homes:
            assert any(p == package and (m == home or m.startswith(home + "/")) for p, m in used), (package, home)


def pinned(lock: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+==[^ ;\\]+)", lock.read_text(), re.M))


def test_the_tests_run_with_the_packages_that_are_shipped() -> None:
    """tests/requirements.lock holds requirements.lock's packages in the same versions, and neither names an index."""
    shipped, tested = ROOT / "requirements.lock", ROOT / "tests" / "requirements.lock"
    assert pinned(shipped) and not pinned(shipped) - pinned(tested)
    assert "://" not in shipped.read_text() + tested.read_text()
