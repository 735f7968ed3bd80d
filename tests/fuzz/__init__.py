"""Fuzzing: every reader of a stranger's octets, fed with mutations of real ones until the time is over.

`scripts/fuzz` runs the targets in `targets.py`, `mutation.py` makes the inputs, `running.py` keeps time and failures.
A target is a function of octets that raises where something is wrong: an exception of ours, an answer that depends on
how the network cut the octets, an output that breaks its own rules, or more time than an input of its size may cost.
"""
