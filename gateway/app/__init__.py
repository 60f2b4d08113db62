"""The attic: builds every concrete thing from the settings, and hands out the keys."""
