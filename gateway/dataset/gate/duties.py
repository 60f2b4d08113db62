"""What obligations let nobody do, or only for some days, or only under some name."""

from __future__ import annotations

import datetime as dt
import re

from gateway.dataset.gate.refusals import LeftOut
from gateway.intent.model import IntendedUse
from gateway.policy.obligation import (
    NAME_PREFIX,
    NO_CACHE,
    ON_PLATFORM,
    days_to_keep,
    values_of,
)
from gateway.receipt.model import Receipt


def barred_by(obligations: tuple[str, ...]) -> LeftOut | None:
    """Tell which obligation lets nobody learn from an output at all."""
    if ON_PLATFORM in obligations:
        return LeftOut("stays-on-platform")
    return LeftOut("not-to-be-kept") if NO_CACHE in obligations else None


def last_day(receipt: Receipt, obligations: tuple[str, ...]) -> dt.date | None:
    """Return the last day on which the output may be kept, or `None` where none is set."""
    days = days_to_keep(obligations)
    if days is None:
        return None
    return dt.date.fromisoformat(receipt.received[:10]) + dt.timedelta(days=days)


def unmet_prefix(use: IntendedUse, student: str, obligations: tuple[str, ...]) -> str | None:
    """Return how the student's name must begin and doesn't, or `None`.

    A student that stays inside may be called anything; one whose audience nobody named may not.
    Names of students are small letters, digits and dashes: `Llama 3` is `llama-3` there.
    """
    if use.audience == "internal":
        return None
    for prefix in values_of(NAME_PREFIX, obligations):
        spelt = re.sub(r"[^a-z0-9.]+", "-", prefix.casefold())
        if not student.startswith(spelt):
            return spelt
    return None
