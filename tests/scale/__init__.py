"""A real Ray cluster on this machine: `nox -s scale`."""
