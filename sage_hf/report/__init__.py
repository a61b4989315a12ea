"""A selection as a page of HTML that needs nothing but itself, and its small form for notebooks."""

from .facts import ReportFacts, Row, RowList
from .page import render_page, render_small

__all__ = ["ReportFacts", "Row", "RowList", "render_page", "render_small"]
