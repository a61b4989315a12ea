"""From what is known of rows to those that are kept, and the result."""

from .selection import Selection
from .stream_selection import StreamSelection

__all__ = ["Selection", "StreamSelection"]
