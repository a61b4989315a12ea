"""The model as it is scored, and as it was."""
