"""The blocking client: the same surface, over one event loop on a thread of its own."""
