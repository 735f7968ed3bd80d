"""`python -m services.dkim`."""

from services.runtime.process import start

start("dkim", "services.dkim.room:serve")
