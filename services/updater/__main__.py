"""`python -m services.updater`."""

from services.runtime.process import start

start("updater", "services.updater.room:serve")
