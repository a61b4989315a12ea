"""What a selection with this model and these rows would be like, before it runs: `diagnose` finds out."""

from .diagnose import diagnose
from .diagnosis import Diagnosis
from .findings import Problem

__all__ = ["Diagnosis", "Problem", "diagnose"]
