"""How rows become files: columns, lines, tables."""
