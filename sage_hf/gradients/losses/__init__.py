"""One loss a row."""
