"""What somebody with the manifest key, or only with the folder, does to a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from gateway.canonical import sha256_hex
from gateway.dataset.manifest import ABOVE, LEAVES, MANIFEST, PROOF, RECEIPTS
from gateway.receipt.sigstore import write_manifest
from gateway.receipt.verify import verify_manifest
from gateway.tlog.proof import format_proof
from tests.support.dataset import House
from tests.support.evidence import MANIFEST_SIGNER, TRUST


def log_again(house: House, folder: Path, edit: Callable[[Any], None] | None = None) -> None:
    """Sign and log the manifest of *folder* for the files that are there now, edited."""
    statement: Any = verify_manifest((folder / MANIFEST).read_bytes(), TRUST)[0]
    if edit is not None:
        edit(statement)
    for subject in statement["subject"]:
        subject["digest"]["sha256"] = sha256_hex((folder / subject["name"]).read_bytes())
    encoded, leaf = write_manifest(statement, MANIFEST_SIGNER)
    index = house.append(leaf)
    (folder / MANIFEST).write_bytes(encoded)
    (folder / PROOF).write_text(format_proof(house.proof(index)))


def found_in(statement: Any) -> Any:
    """Return what the gate is said to have found."""
    return statement["predicate"]["buildDefinition"]["internalParameters"]


def asked_in(statement: Any) -> Any:
    """Return what is said to have been asked for."""
    return statement["predicate"]["buildDefinition"]["externalParameters"]


def lines_of(folder: Path, name: str) -> list[bytes]:
    """Return the lines of a file, without their ends."""
    return (folder / name).read_bytes().splitlines()


def put_lines(folder: Path, name: str, lines: Iterable[bytes]) -> None:
    """Replace the lines of a file."""
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))


def said_in(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `receipts.jsonl`."""
    return [msgspec.json.decode(line) for line in lines_of(folder, RECEIPTS)]


def say(folder: Path, said: Iterable[dict[str, Any]]) -> None:
    """Replace the lines of `receipts.jsonl`, numbered anew."""
    numbered = [line | {"row": number} for number, line in enumerate(said)]
    put_lines(
        folder, RECEIPTS, [msgspec.json.encode(line, order="sorted") for line in numbered]
    )


def leaves_of(folder: Path) -> list[bytes]:
    """Return the leaves that vouch for rows."""
    return [leaf for _, leaf in _framed((folder / LEAVES).read_bytes(), 0)]


def put_leaves(folder: Path, leaves: Iterable[bytes]) -> None:
    """Replace the leaves that vouch for rows."""
    (folder / LEAVES).write_bytes(b"".join(len(x).to_bytes(2, "big") + x for x in leaves))


def above_in(folder: Path) -> dict[int, bytes]:
    """Return the leaves above the rows, by their indices."""
    return dict(_framed((folder / ABOVE).read_bytes(), 8))


def put_above(folder: Path, leaves: dict[int, bytes]) -> None:
    """Replace the leaves above the rows."""
    (folder / ABOVE).write_bytes(
        b"".join(
            index.to_bytes(8, "big") + len(leaf).to_bytes(2, "big") + leaf
            for index, leaf in leaves.items()
        )
    )


def _framed(whole: bytes, index_bytes: int) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(whole):
        index = int.from_bytes(whole[at : at + index_bytes], "big")
        at += index_bytes
        size = int.from_bytes(whole[at : at + 2], "big")
        yield index, whole[at + 2 : at + 2 + size]
        at += 2 + size
