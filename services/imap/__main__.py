"""Entry of the imap container."""

from services.runtime.process import start

start("imap", "services.imap.room:serve")
