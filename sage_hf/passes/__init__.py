"""Everything that reads all rows."""

from .run import Passes

__all__ = ["Passes"]
