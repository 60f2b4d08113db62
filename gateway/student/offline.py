"""Close the windows before any training library is imported.

The libraries read these once, when they are imported: no hub, no usage statistics, no second
thread per core. A run that is sealed off opens no socket.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Final

_SEALS: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def seal_off(*, threads: int = 1) -> None:
    """Set what the training libraries read when they are imported, for this process only."""
    for name, value in _SEALS.items():
        os.environ[name] = value  # noqa: TID251  # not our settings: what the libraries read
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # noqa: TID251  # as above


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep from people what the training libraries have to say to each other.

    Everything else that they warn of is heard; in tests it ends the test.
    """
    with warnings.catch_warnings():
        for said in (".*pin_memory.*", ".*is_gradient_checkpointing.*"):
            warnings.filterwarnings("ignore", message=said)
        yield
