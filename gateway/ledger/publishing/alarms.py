"""What an operator should see to although the gateway goes on: said by health and metrics."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.ledger.counts import PRESENT, SEPARATOR

UNWITNESSED: Final = "checkpoint.unwitnessed"
"""A witness has not cosigned the newest checkpoint."""

UNCHECKED: Final = "checkpoint.unchecked"
"""The operator had it start although too few witnesses answered, and they still don't."""

COPY_BEHIND: Final = "checkpoint.copy_behind"
"""A copy of the checkpoint can't be written."""

COPY_NEW: Final = "checkpoint.copy_new"
"""A copy was not there at the start, so the ledger was not compared with it."""

UNSTAMPED: Final = "checkpoint.unstamped"
"""A timestamp is overdue."""

ALARMS: Final = (UNWITNESSED, UNCHECKED, COPY_BEHIND, COPY_NEW, UNSTAMPED)

PUBLISHED: Final = f"{PRESENT}checkpoint-leaves"
"""Counts the leaves that the newest published checkpoint covers."""

RAISED: Final = f"{PRESENT}checkpoint-alarm{SEPARATOR}"
"""Begins the counts of alarms, each under its code."""


class Alarm(msgspec.Struct, frozen=True):
    """One of `ALARMS`, and a sentence about it."""

    code: str
    told: str
