"""The door for callers: HTTP in, one typed request out, and back."""
