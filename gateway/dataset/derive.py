"""Record what a pipeline makes of outputs: each row with its parents, signed, in the ledger.

A pipeline that calls models through the gateway has a receipt for every answer. What it makes
of the answers (rewritten, filtered, judged, translated, extracted, composed) it records here:
so every row can still be traced to the answers it was made from, and the gate rules over all of
them. `gateway.app.pipeline.open_pipeline` opens a pipeline on an installation:

    with open_pipeline(declaration="use-…", by="ada") as pipeline:
        with pipeline.transform("clean", version="1", kind="rewrite", code=clean) as step:
            step.row({"messages": […]}, parents=["x-…/0"])

A parent is named by a reference, as text: `x-…` or `x-…/1` (a choice of an exchange), `d-…/3`
(a row that was recorded before) or the SHA-256 of a student's training manifest (a student that
the pipeline itself runs). A parent that can't be resolved is refused, and so is one that was
withdrawn or erased, or that belongs to another project.

Rows are recorded in batches. Of each the texts are durable first, then the leaf that commits
to them; what is interrupted leaves whole batches and nothing of the next one. A pipeline
belongs to one thread; any number of them may record while a gateway serves.
"""

from __future__ import annotations

from gateway.dataset.derivation.parents import ParentRef, Records, parent
from gateway.dataset.derivation.pipeline import Pipeline, map  # noqa: A004  as `datasets` has it
from gateway.dataset.derivation.recording import BatchErasedError, Progress
from gateway.dataset.derivation.stated import code_digest
from gateway.dataset.derivation.step import Step

__all__ = [
    "BatchErasedError",
    "ParentRef",
    "Pipeline",
    "Progress",
    "Records",
    "Step",
    "code_digest",
    "map",
    "parent",
]
