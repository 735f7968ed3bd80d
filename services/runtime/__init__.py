"""Plumbing that every process shares: settings, start and stop, listeners, TLS, DNS, events, health, internal HTTP.

Owns the event segments (`events.py`) and a room's fact queue (`facts.py`) on disk, nothing else. Called by the rooms.
Never decides anything about a message.
"""
