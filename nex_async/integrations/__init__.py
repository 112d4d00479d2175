"""Nex inside the frameworks that move data: each module here brings one, and needs the extra of its name."""
