"""Laws of checkpoints."""

from __future__ import annotations

import pytest

from gateway.errors import BadProofError
from gateway.tlog.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from gateway.tlog.merkle import EMPTY_ROOT
from gateway.tlog.text import format_base64

ROOT = format_base64(bytes(32))


@pytest.mark.parametrize(
    "checkpoint", [Checkpoint("o", 7, bytes(32)), Checkpoint("o", 0, EMPTY_ROOT)]
)
def test_what_is_written_is_read(checkpoint: Checkpoint) -> None:
    """A checkpoint is read back from its three lines."""
    assert checkpoint == parse_checkpoint(format_checkpoint(checkpoint))


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"o\n7\n{ROOT}",
        f"o\n7\n{ROOT}\n\n",
        f"o\n7\n{ROOT}\nextension\n",
        f"o\r\n7\r\n{ROOT}\r\n",
        f"\n7\n{ROOT}\n",
        f"o\n+7\n{ROOT}\n",
        f"o\n{2**63}\n{ROOT}\n",
        f"o\n7\n{ROOT[:-4]}\n",
        f"o\n0\n{ROOT}\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    """A checkpoint that departs from its one form is malformed."""
    with pytest.raises(BadProofError):
        parse_checkpoint(text)
