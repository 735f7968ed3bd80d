"""The fixtures of `browsing.py`, for every test of this folder."""

from browsing import browser, house, open_page

__all__ = ["browser", "house", "open_page"]
