"""The main job end to end, offline, against a stub provider."""
