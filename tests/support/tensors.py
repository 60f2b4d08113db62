"""Files of weights, written by hand in the format's own words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor under a name."""

    name: str = "one"
    dtype: str = "F32"
    shape: tuple[int, ...] = (2, 3)
    content: bytes = bytes(range(24))


def write_tensors(
    path: Path, tensors: Iterable[Tensor], metadata: dict[str, str] | None = None
) -> Path:
    """Write *tensors* to the file at *path*, one after the other, and return it."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for one in tensors:
        end = len(data) + len(one.content)
        offsets = [len(data), end]
        header[one.name] = {"dtype": one.dtype, "shape": one.shape, "data_offsets": offsets}
        data += one.content
    table = json.dumps(header).encode()
    path.write_bytes(len(table).to_bytes(8, "little") + table + data)
    return path


def numbered(number: int, name: str = "one") -> Tensor:
    """Return a small tensor that is another for each *number* below 256."""
    return Tensor(name=name, shape=(1,), content=bytes([number, 0, 0, 0]))
