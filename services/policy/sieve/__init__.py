"""Sieve (RFC 5228): what a person wants done with mail that comes in, read, checked and run. Pure.

`grammar` reads a script into commands, `check` holds them to the language (`language` is its table) and gives a
`Script`, `run` runs that over a message (`mail`) and gives `actions`: values that smtp-in carries out. Nothing here
touches a mailbox, a clock or a network; what a script may ask of the world is passed in (`run.World`).

A script never costs mail: whatever goes wrong while it runs ends in the implicit keep and a sentence for its owner.
"""
