"""The local model that learns, and the gate in front of it."""
