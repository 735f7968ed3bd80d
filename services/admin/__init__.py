"""The admin room: the owner's page, the JSON API, and the index of everything that any room recorded.

Owns `admin_dir`: directory.db (through `services.directory`), events.db (`event_index.py`; may be deleted), sessions,
the command line's token, the first password until it is changed. Publishes the directory's snapshots. People come to
8080 (page and API), rooms to 8000 (facts, health); it asks every other room over its pair's network. Never handles
mail, holds no key.
"""
