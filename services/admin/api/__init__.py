"""The JSON API under /api/v1: a router per noun over `operations.py`.

Every route but the description itself needs an administrator: HTTP Basic, the command line's token, or the page's
session with its form token. Errors are `{"error": "a sentence"}`.
"""
