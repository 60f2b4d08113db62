"""Laws of likeness: sketches estimate it, clusters follow from it, splits part no cluster."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataset.assembly.alike import (
    BANDS,
    BINS,
    SHINGLE,
    band_keys,
    clusters,
    likeness,
    low_bytes,
    normal,
    sketch,
)
from gateway.dataset.assembly.split import held_out

TEXTS = st.text(max_size=60)


def runs_of(text: bytes) -> set[bytes]:
    """Return all runs of a text, which is at least as long as one."""
    return {text[at : at + SHINGLE] for at in range(len(text) - SHINGLE + 1)}


def clustered(texts: list[str], same: Any = None) -> list[int]:
    """Return the first of the cluster of each text."""
    sketches = [sketch(normal(text)) for text in texts]
    keys = np.array([band_keys(one) for one in sketches]).reshape(-1, BANDS)
    low = np.array([low_bytes(one) for one in sketches]).reshape(-1, BINS)
    return [int(one) for one in clusters(keys, low, np.arange(len(texts)), same=same)]


@pytest.mark.parametrize("words", [20, 60, 200])
@pytest.mark.parametrize("changed", [0.0, 0.05, 0.2, 1.0])
def test_a_sketch_estimates_how_much_two_texts_share(words: int, changed: float) -> None:
    """The estimate is near the Jaccard similarity of the runs, for much and for little."""
    draw = np.random.default_rng(words)
    off = []
    for _ in range(40):
        one = [f"w{number}" for number in draw.integers(0, 10_000, words)]
        other = [f"v{word}" if draw.random() < changed else word for word in one]
        texts = [" ".join(side).encode() for side in (one, other)]
        sides = [runs_of(text) for text in texts]
        share = len(sides[0] & sides[1]) / len(sides[0] | sides[1])
        sketches = [low_bytes(sketch(text))[None] for text in texts]
        off.append(float(likeness(*sketches)[0]) - share)

    assert abs(float(np.mean(off))) < 0.03
    assert float(np.std(off)) < 0.12


@given(st.lists(TEXTS, min_size=1, max_size=12))
def test_the_same_texts_have_the_same_clusters(texts: list[str]) -> None:
    """Case and blanks aside equal texts are alike, the first names the cluster, always so."""
    doubled = [*texts, *(f"  {text.upper().lower()}\n" for text in texts)]
    labels = clustered(doubled)

    assert labels == clustered(doubled)
    assert all(label <= at and labels[label] == label for at, label in enumerate(labels))
    by_text: dict[bytes, int] = {}
    for text, label in zip(doubled, labels, strict=True):
        assert by_text.setdefault(normal(text), label) == label


def test_what_differs_stands_apart() -> None:
    """Texts that share little are no duplicates, and those that share nearly all are."""
    draw = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in draw.integers(0, 10_000, 40)) for _ in range(200)]
    nearly = [f"{text} too" for text in texts]

    labels = clustered([*texts, *nearly])

    assert labels == [*range(200), *range(200)]


def test_equal_keys_join_whatever_the_texts() -> None:
    """Rows with the same prompt are one cluster, and likeness is passed on."""
    same = np.array([1, 2, 1, 3, 2], np.uint64)

    assert [0, 1, 0, 3, 1] == clustered(["a b c", "d e f", "g h i", "j k l", "m n o"], same)


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=40),
    st.fractions(min_value=Fraction(1, 100), max_value=Fraction(99, 100)),
    st.integers(0, 2**63),
)
def test_a_split_parts_no_cluster(drawn: list[int], share: Fraction, seed: int) -> None:
    """Whole clusters stand on one side; both sides have one; order and others don't matter."""
    firsts = {one: drawn.index(one) for one in drawn}
    labels = np.array([firsts[one] for one in drawn])
    prompts = np.array([one * 7919 + 1 for one in drawn], np.uint64)
    if len(firsts) < 2:
        return
    apart, train, held = held_out(labels, prompts, share, seed)

    sides = {one: set(apart[np.array(drawn) == one].tolist()) for one in firsts}
    assert all(len(side) == 1 for side in sides.values())
    assert (train, held) == (
        sum(not side for (side,) in sides.values()),
        sum(side for (side,) in sides.values()),
    )
    assert min(train, held) >= 1
    again, _, _ = held_out(labels, prompts, share, seed)
    assert apart.tolist() == again.tolist()


@pytest.mark.parametrize("share", ["0.05", "0.5", "0.9"])
def test_about_the_share_is_held_out(share: str) -> None:
    """Of many clusters about the share that was asked for stands apart."""
    labels = np.arange(20_000)

    apart, _, _ = held_out(labels, labels.astype(np.uint64), Fraction(share), 3)

    assert abs(float(apart.mean()) - float(share)) < 0.02
