"""The parts of the mirror: its file, how listings are read into it, and what tells it to look."""
