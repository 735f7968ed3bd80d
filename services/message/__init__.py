"""Pure functions over the bytes of a message: headers, MIME, ENVELOPE, DKIM, delivery status notifications.

Owns nothing on disk. Called by every room that looks into a message. Never does I/O and never re-serialises a message:
what arrived is what is kept; headers are prepended.
"""
