"""Which outputs may be learned from, and the signed set of those that are."""
