"""The snapshots of a feed in their order, for rounds of training.

A snapshot names the one before by the digest of its manifest; that alone is the order. Not
here: whether they verify, which the gate asks of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from gateway.canonical import sha256_hex
from gateway.dataset.manifest import MANIFEST, parse_manifest
from gateway.errors import CallerError, EvidenceError, MissingPieceError
from gateway.ident import Sha256
from gateway.limits import BUNDLE_BYTES_MAX
from gateway.receipt.envelope import open_envelope
from gateway.receipt.sigstore import open_manifest


def snapshots_of(feed: str, datasets: Path) -> tuple[Path, ...]:
    """Return the snapshots of *feed* among the folders in *datasets*, the first one first.

    Those in a folder of the feed's name belong to it, and those beside it that are called so,
    alone or with a number behind.

    Raises:
        MissingPieceError: there is none yet.
        CallerError: they do not follow one on the other.
    """
    found = dict(_said(_candidates(feed, datasets)))
    if not found:
        raise MissingPieceError(
            f"feed `{feed}` has no snapshot in `{datasets}` yet",
            hint=f"make one: `gateway dataset follow {feed}`",
        )
    before = {digest: follows for digest, (_, follows) in found.items()}
    first = [digest for digest, follows in before.items() if follows not in found]
    next_ = {follows: digest for digest, follows in before.items()}
    order = [first[0]]
    while order[-1] in next_:
        order.append(next_[order[-1]])
    if len(order) != len(found):
        strange = next(found[digest][0] for digest in found if digest not in order)
        raise CallerError(
            f"`{strange}` does not follow on the other snapshots of feed `{feed}`",
            hint="keep the snapshots of one feed together, and nothing else",
            code="feed.broken",
        )
    return tuple(found[digest][0] for digest in order)


def _candidates(feed: str, datasets: Path) -> Iterable[Path]:
    for folder in (*datasets.glob(f"{feed}/*"), *datasets.glob(f"{feed}*")):
        rest = folder.name.removeprefix(feed)
        named = folder.parent == datasets and (not rest or rest.lstrip("-.").isdigit())
        if (named or folder.parent != datasets) and (folder / MANIFEST).is_file():
            yield folder


def _said(folders: Iterable[Path]) -> Iterable[tuple[Sha256, tuple[Path, Sha256 | None]]]:
    for folder in sorted(folders):
        with (folder / MANIFEST).open("rb") as file:
            bundle = file.read(BUNDLE_BYTES_MAX + 1)
        try:
            leaf, _ = open_manifest(bundle)
            payload = open_envelope(leaf).payload
            manifest = parse_manifest(msgspec.json.decode(payload))
        except (EvidenceError, msgspec.DecodeError) as error:
            raise EvidenceError(f"{folder}: {error}", hint="get that snapshot again") from error
        yield sha256_hex(payload), (folder, manifest.asked.follows)
