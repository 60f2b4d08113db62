"""What the caller says it will do with an output."""
