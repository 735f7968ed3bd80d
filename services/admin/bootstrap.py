"""The first start: the first domain, the first administrator, and a password that is shown once.

Looked at on every start, since the first one is often with `example.test` and the second with the owner's own domain:
a MAIL_DOMAIN or ADMIN_ADDRESS that was never made before is made then. One that the owner has deleted stays deleted.
The password's plain text lies in `admin_dir/first-password` (0600) until that account's password is changed, the
address beside it: `mailstead first-login` reads both, without asking the room.
"""

from __future__ import annotations

import contextlib
import os
import secrets

from services.directory.addresses import InvalidName, account_address, domain_name
from services.directory.changes import Directories
from services.directory.passwords import hash_password
from services.runtime.values import Settings
from services.storage.atomic import write_durable

PASSWORD_FILE = "first-password"  # noqa: S105 - a file's name
ADDRESS_FILE = "first-administrator"
ADDRESS = "first-administrator"  # its name in the database
_CONSONANTS, _VOWELS = "bdfghjkmnprstvz", "aeiou"


class WrongAddress(OSError):
    """A setting that no administrator can be made of; an OSError, so that the start ends with its one line."""


def readable_password() -> str:
    """Twelve syllables in four groups: 74 random bits that can be read over the telephone and typed on one."""
    syllables = [secrets.choice(_CONSONANTS) + secrets.choice(_VOWELS) for _ in range(12)]
    return "-".join("".join(syllables[start : start + 3]) for start in range(0, 12, 3))


def prepare(directories: Directories, settings: Settings, admin_dir: str) -> str:
    """Make what is missing of the settings' domain and administrator; the address that was made, or "".

    Blocking. Raises WrongAddress, `PublicationFailed`, sqlite3.Error.
    """
    try:
        domain, address = domain_name(settings.mail_domain), account_address(settings.administrator)
    except InvalidName as error:
        raise WrongAddress(f"MAIL_DOMAIN or ADMIN_ADDRESS (env/mailstead.env) is not allowed: {error}") from None
    database = directories.database
    its_domain = address.partition("@")[2]
    if its_domain != domain and not database.has_domain(its_domain):
        raise WrongAddress(
            f"ADMIN_ADDRESS={address} (env/mailstead.env) is not allowed: it must be in MAIL_DOMAIN={domain} "
            "or in a domain that is here already"
        )
    if not database.has_domain(domain) and not database.meta(f"made {domain}"):
        directories.add_domain(domain)
    directories.remember(f"made {domain}", "yes")
    if database.meta(f"made {address}"):
        _keep(admin_dir, ADDRESS_FILE, database.meta(ADDRESS))
        return ""
    made = ""
    if database.account(address) is None:
        password = readable_password()
        # Before the account: one whose password nobody can read would be no use.
        _keep(admin_dir, PASSWORD_FILE, password)
        directories.remember(ADDRESS, address)
        directories.add_account(address, hash_password(password), administrator=True)
        made = address
    elif not database.account(address).account.administrator:  # type: ignore[union-attr]
        directories.update_account(address, administrator=True)
    _keep(admin_dir, ADDRESS_FILE, database.meta(ADDRESS))
    directories.remember(f"made {address}", "yes")
    return made


def forget(directories: Directories, admin_dir: str, address: str) -> None:
    """The password of `address` was changed, or the account deleted: its plain text goes, if it is the first one's."""
    if directories.database.meta(ADDRESS) == address:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(admin_dir, PASSWORD_FILE))


def _keep(admin_dir: str, name: str, content: str) -> None:
    path = os.path.join(admin_dir, name)
    with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
        if file.read() == content + "\n":
            return
    # Its name too must be down before the account is: whoever cannot read the first password cannot log in.
    write_durable(path, content.encode("ascii") + b"\n", 0o600)
