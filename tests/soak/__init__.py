"""The soak: everything at once, on real sockets, through a bad network."""
