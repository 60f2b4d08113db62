"""The discharger of `delete-by-days`: texts that the terms let nobody keep any longer go.

The gate refuses them from that day on, whether or not they are gone yet. Receipts stay.
"""

from __future__ import annotations

import datetime as dt

from gateway.ledger.reader import Reader
from gateway.policy.obligation import DELETE_BY, days_to_keep
from gateway.receipt.model import Receipt
from gateway.receipt.statement import read_leaf
from gateway.store.content import ContentStore


def erase_overdue(reader: Reader, content: ContentStore, today: dt.date) -> int:
    """Erase the text of every exchange whose days are over; return how many texts went.

    So does what was kept of an exchange that was abandoned: a crash came between its text and
    its receipt, so nothing will ever say for how long it may be kept.

    Raises:
        LedgerUnwellError: the index or the texts can't be written at present.
    """
    reader.catch_up()
    erased = 0
    for row in reader.index.select(kind="receipt", obligation=DELETE_BY):
        if row.exchange is None or content.was_erased(row.exchange):
            continue
        receipt = read_leaf(reader.leaf(row.index))
        if isinstance(receipt, Receipt) and is_overdue(receipt, today):
            erased += content.erase(receipt.exchange)
    for row in reader.index.select(kind="abandonment"):
        if row.exchange is not None and not content.was_erased(row.exchange):
            erased += content.erase(row.exchange)
    return erased


def is_overdue(receipt: Receipt, today: dt.date) -> bool:
    """Tell whether the days are over for which the output may be kept."""
    days = days_to_keep(receipt.ruling.obligations)
    if days is None:
        return False
    try:
        made = dt.date.fromisoformat(receipt.received[:10])
    except ValueError:
        # Nobody can tell how old it is, so nobody can say that it may still be kept.
        return True
    return today > made + dt.timedelta(days=days)
