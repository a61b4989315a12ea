"""The front door: the passes put together."""

from .selector import SageSelector

__all__ = ["SageSelector"]
