"""A selection in a browser: other choices tried, rows looked at, labels marked."""

from .launch import build_app, launch

__all__ = ["build_app", "launch"]
