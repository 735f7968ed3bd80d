"""Prepares the volumes before any room starts: secrets of the pairs, owners and modes of the folders.

A one-shot container (`python -m services.setup`) that Compose runs to its end first; root with CHOWN, DAC_OVERRIDE and
FOWNER alone, and no network. Owns the `secrets` volume, which no room mounts: each room's own secrets volume gets a
copy of the pairs it belongs to. Run again, it changes nothing. It never reads mail, and never changes the owner of
what lies inside a folder: only the folders that the rooms are given.
"""
