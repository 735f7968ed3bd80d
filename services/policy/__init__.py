"""Pure decisions: where mail goes, who may send as whom, whom to refuse, when to try again.

Owns nothing on disk. Rooms call it with bytes and values and get values back; clock, randomness, DNS answers and the
directory are passed in. Imports `message` and `protocol` only: never asyncio, sockets or files.
"""
