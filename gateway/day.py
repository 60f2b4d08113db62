"""A day as people and statements write it: `YYYY-MM-DD`, and in no other way."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_day(text: str) -> dt.date | None:
    """Return the day that *text* names, or `None` where it names none.

    ISO 8601 has other ways to write one (`20261122`, `2026-W47-7`); none of them is read.
    """
    if _DAY.fullmatch(text) is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None
