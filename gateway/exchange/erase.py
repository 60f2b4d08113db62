"""The discharger of `delete-by-days`: texts that the terms let nobody keep any longer go.

The gate refuses them from that day on, whether or not they are gone yet. Receipts stay.
"""

from __future__ import annotations

import datetime as dt

from gateway.policy.obligation import values_of
from gateway.store.content import ContentStore
from gateway.store.index import Index

DELETE_BY = "delete-by-days"


def erase_overdue(index: Index, content: ContentStore, today: dt.date) -> int:
    """Erase the text of every exchange whose days are over; return how many texts went."""
    erased = 0
    for row in index.select(kind="receipt", obligation=DELETE_BY):
        days = [int(one) for one in values_of(DELETE_BY, row.obligations)]
        if row.exchange is None or row.at is None or not days:
            continue
        last = dt.date.fromisoformat(row.at[:10]) + dt.timedelta(days=min(days))
        if today > last and not content.was_erased(row.exchange):
            erased += content.erase(row.exchange)
    return erased
