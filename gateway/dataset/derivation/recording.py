"""What the steps of a pipeline share: what is recorded, what waits, and how it comes in."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

from gateway.clock import rfc3339
from gateway.dataset.derivation.batch import Batch
from gateway.dataset.derivation.handed import read_line
from gateway.dataset.derivation.parents import Parents, Records, Reference, ref_of
from gateway.errors import GateRefusedError
from gateway.intent.model import Declaration
from gateway.receipt.model import Caller, Declared, Derivation, Parent, Transform, Written
from gateway.receipt.statement import write_statement
from gateway.store.content import Content

Progress = Callable[[str, int, int | None], None]
"""Called with what is done, how many rows are through, and how many there are, if known."""

ENDED: Final = "derive.ended"


class BatchErasedError(GateRefusedError):
    """Text that rows were made of was erased while they were recorded: none of them counts."""

    code = "derive.batch_erased"


class Waiting(Protocol):
    """Who has a batch that is not recorded yet."""

    def flush(self) -> None:
        """Record it."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Record it, or drop it after an error."""
        ...


class Recording:
    """Makes batches durable for one declared use, until it has ended."""

    def __init__(
        self, records: Records, declaration: Declaration, by: str, progress: Progress | None
    ) -> None:
        self.declaration = declaration
        self.by = by
        self.recorded = 0
        """Rows that are durable."""
        self._records = records
        self._progress = progress
        # OWNED BY: the steps; whose batch is not recorded yet, by the id it will have.
        self._open: dict[str, Waiting] = {}
        self._ended = False
        self.parents = Parents(records, declaration.project, self._settle)

    def end(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Record what waits, or drop it after an error; nothing is recorded after that."""
        try:
            for waiting in list(self._open.values()):
                waiting.__exit__(kind, error, trace)
        finally:
            self._ended = True

    def begin(self, waiting: Waiting) -> Batch:
        """Return a new batch, which *waiting* fills."""
        batch = Batch(self._records.clock.now_ms())
        self._open[batch.id] = waiting
        return batch

    def leave(self, batch: Batch) -> None:
        """Let go of *batch*: nobody fills it any more."""
        del self._open[batch.id]

    def row(self, reference: Reference) -> dict[str, Any]:
        """Return the row that *reference* names, as `Pipeline.row` promises."""
        self.check_open()
        return read_line(self.parents.line(self.parents.resolve(ref_of(reference))))

    def check_open(self) -> None:
        """Raise `derive.ended` once the block of the pipeline is over."""
        if self._ended:
            raise GateRefusedError(
                "the pipeline has ended, and its ledger is closed",
                hint="record rows within `with open_pipeline(...)`",
                code=ENDED,
            )

    def tell(self, doing: str, done: int, total: int | None) -> None:
        """Tell whoever watches how far a long piece of work is."""
        if self._progress is not None:
            self._progress(doing, done, total)

    def _settle(self, named: str) -> None:
        """Record the batch of that id, if it waits: something is made of it already."""
        waiting = self._open.get(named)
        if waiting is not None:
            waiting.flush()

    def record(
        self, batch: Batch, transform: Transform, author: Written | None, tags: tuple[str, ...]
    ) -> None:
        """Make *batch* durable: its text, then its leaf.

        Raises:
            LedgerUnwellError: it was not recorded; nothing of it counts.
        """
        records = self._records
        content = Content(request=b"", salt=batch.salt, rows=dict(enumerate(batch.lines)))
        leaf = write_statement(
            self._statement(batch, transform, author, tags), (), records.signer()
        )
        # First the text, then the leaf that commits to it: a crash between the two leaves text
        # that no leaf names, which nothing ever reads.
        records.texts.put_many([(batch.id, content)])
        records.append(leaf)
        self._check_nothing_went(batch)
        self.recorded += len(batch.rows)

    def _statement(
        self, batch: Batch, transform: Transform, author: Written | None, tags: tuple[str, ...]
    ) -> Derivation:
        """Return what is stated of *batch*."""
        return Derivation(
            derivation=batch.id,
            caller=Caller(principal=self.by, project=self.declaration.project),
            declared=Declared(use=self.declaration.use, declaration=self.declaration.id),
            transform=transform,
            written=author,
            parents=tuple(batch.parents),
            rows=tuple(batch.rows),
            tags=tags,
            at=rfc3339(self._records.clock.now_ms()),
            writer=self._records.writer,
        )

    def _check_nothing_went(self, batch: Batch) -> None:
        """Erase what was just recorded where text that it was made of was erased meanwhile.

        An erasure looks through the derivations after it has erased: one that it did not see
        yet is recorded after, and so finds here that the text is gone.
        """
        self.parents.forget()
        gone = self.parents.gone(sorted(batch.parents, key=_by_text))
        if gone is not None:
            self._records.texts.erase_all([batch.id])
            raise BatchErasedError(
                f"`{gone}` was erased while rows were made of it; theirs are erased, too",
                hint="run it again: rows that are made of something else are recorded then",
            )


def _by_text(one: Parent) -> str:
    return one.exchange or one.derivation or ""
