"""The append-only log of statements: one order, one root, no edits."""
