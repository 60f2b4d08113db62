"""Signed statements, and the only code that verifies them."""
