"""Small helpers that know nothing of selection."""
