"""A selection in a browser: other choices tried, rows looked at, labels marked."""

from .server import Offers, build_app, launch

__all__ = ["Offers", "build_app", "launch"]
