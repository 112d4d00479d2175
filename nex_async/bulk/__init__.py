"""Many at once: rows in, rows out, and a local copy that keeps in step."""
