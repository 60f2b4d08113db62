"""What several commands read from the command line in the same way."""

from __future__ import annotations

import argparse
import datetime as dt
import re

from gateway.day import parse_day


def day(text: str) -> dt.date:
    """Return the day that an argument names; for `type=` of argparse."""
    found = parse_day(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"`{text}` is not a day (YYYY-MM-DD)")
    return found


def count(text: str) -> int:
    """Return how many of something an argument names; for `type=` of argparse."""
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"`{text[:20]}` is no number of them")
    return int(text)


def seed(text: str) -> int:
    """Return the seed that an argument names; a manifest states it, so it fits into one."""
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(
            f"`{text[:20]}` is no seed: a number of 18 digits at most"
        )
    return int(text)
