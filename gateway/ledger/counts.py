"""What processes count, and tell each other: by names that the hub need not understand."""

from __future__ import annotations

from typing import Final

Counts = dict[str, float]
"""What one process has counted, by name."""

PRESENT: Final = "now/"
"""Begins the names of counts that end with the process that counted them."""

SEPARATOR: Final = "\x1f"
"""Stands between the name of a count and its label."""
