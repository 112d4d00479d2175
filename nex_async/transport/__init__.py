"""How one call travels: wire (sans-io), retry (a pure decision), limiter, pool, and sender, where they meet."""
