"""Debian's Postfix as a peer: an instance of its own on loopback that delivers to a Maildir, durably, as Debian sets it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

SETTINGS = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mail.bench.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
alias_database =
virtual_mailbox_domains = bench.test
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = inline:{{ user@bench.test=user/ }}
virtual_minimum_uid = 100
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
maillog_file = {folder}/log
maillog_file_prefixes = {parent}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/tls.pem
default_transport = error:no way out
relay_transport = error:no way out
"""


class Postfix:
    """One instance in `folder`, SMTP on `port`, mail for user@bench.test in `maildir`. TLS is offered, as by us."""

    def __init__(self, folder: Path, port: int, chain_and_key: bytes) -> None:
        self.folder, self.port = folder, port
        self.maildir = folder / "mail" / "user"
        for name in ("etc", "spool", "data", "mail"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        shutil.chown(folder / "data", "postfix")
        shutil.chown(folder / "mail", "nobody")
        (folder / "tls.pem").write_bytes(chain_and_key)
        (folder / "tls.pem").chmod(0o600)
        text = SETTINGS.format(folder=folder, parent=folder.parent)
        (folder / "etc/main.cf").write_text(text)
        (folder / "etc/dynamicmaps.cf").write_text("")
        (folder / "etc/master.cf").write_text(self._services(Path("/etc/postfix/master.cf").read_text()))

    def _services(self, text: str) -> str:
        """Debian's master.cf with our port, and without chroot: there is nothing in this instance's spool to run in."""
        lines = []
        for line in text.splitlines():
            line = re.sub(r"^smtp(\s+inet\s)", rf"127.0.0.1:{self.port}\1", line)
            fields = line.split()
            if len(fields) >= 8 and not line[0].isspace() and not line.startswith("#"):
                fields[4] = "n"
                line = "  ".join(fields)
            lines.append(line)
        return "\n".join(lines) + "\n"

    def start(self) -> None:
        subprocess.run(["postfix", "-c", self.folder / "etc", "start"], check=True, capture_output=True)

    def stop(self) -> None:
        subprocess.run(["postfix", "-c", self.folder / "etc", "stop"], check=False, capture_output=True)

    @property
    def pid(self) -> int:
        """The master's."""
        return int((self.folder / "spool/pid/master.pid").read_text().split()[0])

    @staticmethod
    def version() -> str:
        return os.fsdecode(
            subprocess.run(["postconf", "-d", "-h", "mail_version"], check=True, capture_output=True).stdout
        ).strip()
