"""`python -m services.smtp_in`."""

from services.runtime.process import start

start("smtp-in", "services.smtp_in.room:serve")
