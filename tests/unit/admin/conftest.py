"""The fixtures of `admin_room.py`, for every test of this folder."""

from admin_room import admin_room, api, new_room, shared

__all__ = ["admin_room", "api", "new_room", "shared"]
