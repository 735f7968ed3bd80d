"""`python -m services.acme`."""

from services.runtime.process import start

start("acme", "services.acme.room:serve")
