"""SMTP on asyncio: the server engine and the client that smtp-in and smtp-out share.

Owns nothing on disk. Called by the rooms, which bring a `Handler` (what to answer) and an `EngineConfig` (limits, TLS,
log-in). Never decides about a message, never reads a setting.
"""
