"""`python -m services.smtp_out`."""

from services.runtime.process import start

start("smtp-out", "services.smtp_out.room:serve")
