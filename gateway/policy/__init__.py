"""What terms allow, as data, and the ruling on one use."""
