"""Batches, item by item: each line is ruled on before it leaves, sealed as it comes back."""
