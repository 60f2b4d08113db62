"""What several commands read from the command line in the same way."""

from __future__ import annotations

import argparse
import datetime as dt

from gateway.day import parse_day


def day(text: str) -> dt.date:
    """Return the day that an argument names; for `type=` of argparse."""
    found = parse_day(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"`{text}` is not a day (YYYY-MM-DD)")
    return found
