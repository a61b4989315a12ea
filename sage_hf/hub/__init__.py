"""Cards, pictures, files and provenance of a selection, and pushing it to the Hub."""
