"""One request, from the door to its receipt."""
