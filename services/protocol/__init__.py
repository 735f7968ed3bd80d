"""Bytes in, values and bytes out: the grammars and sessions of the protocols that Mailstead speaks.

Owns nothing on disk. Called by the engines (`smtp`, the rooms' own) and by `message` and `policy` for paths and
addresses. Never opens a socket or a file, never reads a clock, never decides who may do what.
"""
