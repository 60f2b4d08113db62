"""Find texts that are nearly the same, by MinHash with banded locality-sensitive hashing.

A text is the set of all its runs of `SHINGLE` bytes, case and blanks aside. Its sketch is one
permutation hash (Li, Owen and Zhang, 2012): the 64-bit hashes of the runs fall into `BINS` bins
by their highest bits, and the smallest of each bin stands in the sketch; an empty bin takes the
next one's that is not (Shrivastava and Li, 2014). The share of places in which two sketches
agree estimates the Jaccard similarity of the sets.

Two texts are compared where all `ROWS` places of at least one of `BANDS` bands agree: a pair
whose similarity is *s* is compared with probability 1 - (1 - s^8)^16, which is 0.95 at 0.8 and
0.9999 at 0.9. They are alike where the estimate reaches `THRESHOLD`. Likeness is passed on:
what is alike to one of a cluster belongs to it.

Pure functions of bytes and arrays: the same texts have the same clusters, everywhere.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

SHINGLE: Final = 5
BINS: Final = 128
BANDS: Final = 16
ROWS: Final = BINS // BANDS
THRESHOLD: Final = 0.8

Sketch = NDArray[np.uint32]
Keys = NDArray[np.uint64]
Labels = NDArray[np.int64]

_BIN_BITS: Final = 7
_VALUE_SHIFT: Final = np.uint64(64 - _BIN_BITS - 32)
_STARTS: Final = (np.arange(BINS + 1, dtype=np.object_) << (64 - _BIN_BITS))[:BINS].astype(
    np.uint64
)
_RUN: Final = np.uint64((1 << 8 * SHINGLE) - 1)
_PLACES: Final = np.arange(BINS)
_BORROWED: Final = np.uint32(0x9E3779B1)
_ODD: Final = np.array(
    [0x9E3779B97F4A7C15 * (2 * at + 1) & (1 << 64) - 1 for at in range(ROWS)], np.uint64
) | np.uint64(1)
_BY_BAND: Final = np.arange(BANDS, dtype=np.uint64) << np.uint64(56)
_COMPARED_AT_ONCE: Final = 1 << 16
_BY_CHANCE: Final = 1 / 256
"""How often two places of sketches agree in their lowest byte that don't agree."""


def normal(text: str) -> bytes:
    """Return *text* as it is compared: without case, and with single blanks."""
    return " ".join(text.casefold().split()).encode("utf-8", "surrogatepass")


def mixed(values: Keys) -> Keys:
    """Return 64-bit *values* mixed so that each bit depends on all (splitmix64's finaliser)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def sketch(text: bytes) -> Sketch:
    """Return the sketch of a text."""
    whole = text.ljust(SHINGLE, b"\0") + bytes(8 - SHINGLE)
    # Eight bytes from each place on, of which the first five are the run.
    eights = np.ndarray((len(whole) - 7,), "<u8", whole, strides=(1,))
    runs = eights & _RUN
    hashes = np.sort(mixed(runs))
    # Sorted, the smallest of a bin is the first that is not below where the bin begins.
    firsts = np.searchsorted(hashes, _STARTS)
    found = hashes[np.minimum(firsts, len(hashes) - 1)]
    full = (firsts < len(hashes)) & (found >> np.uint64(64 - _BIN_BITS) == _PLACES)
    values = (found >> _VALUE_SHIFT).astype(np.uint32)
    if full.all():
        return values
    filled = np.flatnonzero(full)
    nearest = filled[np.searchsorted(filled, _PLACES) % len(filled)]
    steps = ((nearest - _PLACES) % BINS).astype(np.uint32)
    return values[nearest] + steps * _BORROWED


def band_keys(sketched: Sketch) -> Keys:
    """Return one key a band: texts whose sketches agree in a whole band have the same.

    Several sketches, one a row, have as many rows of keys.
    """
    wide = sketched.reshape(*sketched.shape[:-1], BANDS, ROWS).astype(np.uint64)
    return mixed((mixed(wide + _ODD) * _ODD).sum(axis=-1, dtype=np.uint64) ^ _BY_BAND)


def low_bytes(sketched: Sketch) -> NDArray[np.uint8]:
    """Return the part of a sketch that is kept to compare it by: the lowest byte of each."""
    return sketched.astype(np.uint8)


def likeness(these: NDArray[np.uint8], those: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the estimated similarity of each of *these* with that of *those*."""
    agree = (these == those).mean(axis=1)
    estimate: NDArray[np.float64] = (agree - _BY_CHANCE) / (1 - _BY_CHANCE)
    return estimate


def clusters(
    keys: Keys,
    sketches: NDArray[np.uint8],
    places: Labels,
    *,
    same: Keys | None = None,
    threshold: float = THRESHOLD,
) -> Labels:
    """Return for each text the first one of its cluster.

    *keys* has a row of band keys a text, *sketches* one of low bytes; *places* says which of
    them the texts are. Texts with equal keys in *same* are of one cluster whatever their
    sketches say. Of all that share a band's key, each is compared with the first.
    """
    labels: Labels = np.arange(len(places), dtype=np.int64)
    if same is not None:
        first, other = _sharing(same)
        _join(labels, first, other)
    for band in range(keys.shape[1]):
        firsts, others = _sharing(keys[:, band][places])
        for at in range(0, len(firsts), _COMPARED_AT_ONCE):
            these = firsts[at : at + _COMPARED_AT_ONCE]
            those = others[at : at + _COMPARED_AT_ONCE]
            near = likeness(sketches[places[these]], sketches[places[those]]) >= threshold
            _join(labels, these[near], those[near])
    return _roots(labels, labels)


def _sharing(keys: Keys) -> tuple[Labels, Labels]:
    """Return the pairs of (first, other) that share a key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))
    return order[first[~begins]], order[~begins]


def _join(labels: Labels, these: Labels, those: Labels) -> None:
    """Make one cluster of each pair; the root of a cluster is its first text."""
    while len(these):
        low, high = _roots(labels, these), _roots(labels, those)
        apart = low != high
        if not apart.any():
            return
        these, those, low, high = these[apart], those[apart], low[apart], high[apart]
        np.minimum.at(labels, np.maximum(low, high), np.minimum(low, high))


def _roots(labels: Labels, of: Labels) -> Labels:
    roots = labels[of]
    while True:
        above = labels[roots]
        if (above == roots).all():
            return roots
        roots = above
