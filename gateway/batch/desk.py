"""The desk for batches: takes their requests in, begins them, and hands their results out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.batch.begin import Beginning
from gateway.batch.errand import Errand, Incoming
from gateway.batch.hand_in import HandingIn
from gateway.batch.hand_out import HandingOut
from gateway.errors import BatchRefusedError
from gateway.exchange.providers import Provider
from gateway.exchange.states import Asked
from gateway.provider.batches import batches_of

SPOOL: Final = "spool"
"""The folder in which bodies are put aside, in the data folder."""


@dataclass(frozen=True, kw_only=True)
class BatchDesk:
    """Makes errands; built once, in `app/`."""

    handing_in: HandingIn
    beginning: Beginning
    handing_out: HandingOut

    async def errand(
        self, asked: Asked, provider: Provider, incoming: Incoming
    ) -> Errand | None:
        """Return what *asked* has to do with a batch; `None`: nothing.

        Raises:
            BatchRefusedError: it would hand in, or begin, what nobody judged, or a line of it
                can't be read.
            BodyTooLargeError: a batch is larger than what is passed on at all.
            SpoolError: it could not be put aside.
            CallerGoneError: the caller hung up in the middle of it.
            LedgerUnwellError: what was found of it could not be kept.
        """
        batches = batches_of(provider.dialect)
        if batches is None:
            return None
        unseen = batches.refused(asked.call)
        if unseen is not None:
            raise BatchRefusedError(unseen.why, hint=unseen.hint, code=unseen.code)
        handing = batches.handing(asked.call, incoming.headers)
        if handing is not None:
            return await self.handing_in.hand_in(asked, provider, batches, handing, incoming)
        begun = batches.begun(asked.call)
        if begun is not None:
            return await self.beginning.begin(asked, provider, batches, begun, incoming)
        results = batches.results(asked.call)
        if results is not None:
            return await self.handing_out.hand_out(asked, provider, batches, results)
        return None
