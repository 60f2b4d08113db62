"""Reading: leaves and their proofs, the tree's parts, and what the statements add up to."""
