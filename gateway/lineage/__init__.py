"""Where something came from and where it went: trees, impact, answers and packs of evidence."""
