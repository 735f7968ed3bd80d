"""Mailstead: a mail server for a home. `services/README.md` tells the path of a message through these packages."""
