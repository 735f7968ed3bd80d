"""The owner's page: server-rendered, no build step, nothing from elsewhere.

`pages.py` renders and guards, `views.py` and `directory_views.py` are the routes; templates/ and static/ beside them.
Every change is a form with the session's token, answered by a redirect.
"""
