"""What each command does, a module per group of RFC 3501 §6.

A handler takes the `Session` and the command's value and is a generator: it yields responses as octets and returns the
text of its tagged OK (`Done`), or raises `Refusal` for NO and BAD. It runs on the account's thread; at each yield the
thread may be given to another session of the account, and may come back to a mailbox that has changed.
"""
